{{- define "podplane.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "podplane.port" -}}
{{ .Values.agentPort | default (ternary 10256 10356 .Values.services.kubeProxyReplacement) | int64 }}
{{- end }}

{{- define "podplane.config" -}}
{{- $own := dict "sysctl_dir" "/host/net" "cni_conf_dir" .Values.cni.confDir }}
{{- with .Values.migrateFrom }}
{{- $_ := set $own "migrate_from" . }}
{{- end }}
{{- if .Values.cni.replace }}{{ $_ := set $own "cni_replace" true }}{{ end }}
{{- if .Values.services.cleanKubeProxy }}{{ $_ := set $own "clean_kube_proxy" true }}{{ end }}
{{- if .Values.agentPort }}{{ $_ := set $own "network" (dict "agent_port" (int64 .Values.agentPort)) }}{{ end }}
{{- if not .Values.services.kubeProxyReplacement }}{{ $_ := set $own "services" (dict "enabled" false) }}{{ end }}
{{- with .Values.dns }}
{{- if .enabled }}
{{- $_ := set $own "dns" (dict "ips" .ips "take_over" .takeOver "domain" .domain) }}
{{- end }}
{{- end }}
{{- merge $own .Values.config | toYaml }}
{{- end }}

{{- define "podplane.controllersConfig" -}}
{{- $found := dict "load_balancers" .Values.loadBalancer.enabled -}}
{{- with .Values.nodeBlocks -}}
{{- if .enabled -}}
{{- if not .cidrs }}{{ fail "nodeBlocks.enabled needs nodeBlocks.cidrs: the networks from which nodes get blocks" }}{{ end -}}
{{- $_ := set $found "node_blocks" (dict "cidrs" .cidrs "mask_size_ipv4" (int .maskSizeIPv4) "mask_size_ipv6" (int .maskSizeIPv6)) -}}
{{- end -}}
{{- end -}}
{{ merge $found .Values.controllers.config | toYaml }}
{{- end }}

{{- /* On every node, in its network, as root without capabilities that the containers do not add. */ -}}
{{- define "podplane.pod" -}}
hostNetwork: true
dnsPolicy: Default
enableServiceLinks: false
priorityClassName: {{ .Values.priorityClassName | quote }}
terminationGracePeriodSeconds: 20
tolerations:
  - operator: Exists
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: config
    configMap:
      name: podplane-agent
  - name: run
    hostPath:
      path: /run/podplane
      type: DirectoryOrCreate
  - name: namespaces
    hostPath:
      path: /run/netns
      type: DirectoryOrCreate
  - name: sysctls
    hostPath:
      path: /proc/sys/net
      type: Directory
  - name: programs
    hostPath:
      path: {{ .Values.cni.binDir | quote }}
      type: DirectoryOrCreate
  - name: networks
    hostPath:
      path: {{ .Values.cni.confDir | quote }}
      type: DirectoryOrCreate
{{- if .Values.migrateFrom }}
  - name: former
    hostPath:
      path: /var/lib/cni
      type: DirectoryOrCreate
{{- end }}
{{- end }}

{{- define "podplane.agentFiles" -}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, NET_RAW{{ if and .Values.dns.enabled (not .Values.uninstall) }}, NET_BIND_SERVICE{{ end }}]
volumeMounts:
  - name: config
    mountPath: /etc/podplane
    readOnly: true
  - name: run
    mountPath: /run/podplane
  - name: namespaces
    mountPath: /run/netns
    mountPropagation: HostToContainer
  - name: sysctls
    mountPath: /host/net
  - name: networks
    mountPath: {{ .Values.cni.confDir | quote }}
{{- if .Values.migrateFrom }}
  - name: former
    mountPath: /var/lib/cni
    readOnly: true
{{- end }}
{{- end }}

{{- define "podplane.pluginFiles" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: programs
    mountPath: {{ .Values.cni.binDir | quote }}
{{- end }}
