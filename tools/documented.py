"""What the OpenAPI document of Kubernetes says of fields in its prose only: which values there are, and what holds when nothing is said.

A row is definition, field, values, default. `tools.shapes` looks each value up in the field's description, so a row that the document
does not bear out stops it.
"""

from __future__ import annotations

from typing import Any

CORE, APPS, BATCH, NETWORKING, RBAC = (
    "io.k8s.api.core.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.rbac.v1.",
)
DISCOVERY, EXTENSIONS = (
    "io.k8s.api.discovery.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
)
PROTOCOLS = ("TCP", "UDP", "SCTP")
NONE: tuple[str, ...] = ()

DOCUMENTED: tuple[tuple[str, str, tuple[str, ...], Any], ...] = (
    (CORE + "PodSpec", "restartPolicy", ("Always", "OnFailure", "Never"), "Always"),
    (CORE + "PodSpec", "dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"), "ClusterFirst"),
    (CORE + "PodSpec", "terminationGracePeriodSeconds", NONE, 30),
    (CORE + "PodSpec", "preemptionPolicy", ("Never", "PreemptLowerPriority"), None),
    (CORE + "PodSpec", "securityContext", NONE, {}),
    (CORE + "Container", "imagePullPolicy", ("Always", "Never", "IfNotPresent"), None),
    (CORE + "Container", "terminationMessagePath", NONE, "/dev/termination-log"),
    (CORE + "Container", "terminationMessagePolicy", ("File", "FallbackToLogsOnError"), "File"),
    (CORE + "EphemeralContainer", "imagePullPolicy", ("Always", "Never", "IfNotPresent"), None),
    (CORE + "EphemeralContainer", "terminationMessagePath", NONE, "/dev/termination-log"),
    (CORE + "EphemeralContainer", "terminationMessagePolicy", ("File", "FallbackToLogsOnError"), "File"),
    (CORE + "ContainerPort", "protocol", PROTOCOLS, "TCP"),
    (CORE + "Probe", "timeoutSeconds", NONE, 1),
    (CORE + "Probe", "periodSeconds", NONE, 10),
    (CORE + "Probe", "successThreshold", NONE, 1),
    (CORE + "Probe", "failureThreshold", NONE, 3),
    (CORE + "HTTPGetAction", "scheme", NONE, "HTTP"),
    (CORE + "ObjectFieldSelector", "apiVersion", NONE, "v1"),
    (CORE + "ConfigMapVolumeSource", "defaultMode", NONE, 0o644),
    (CORE + "SecretVolumeSource", "defaultMode", NONE, 0o644),
    (CORE + "ServiceAccountTokenProjection", "expirationSeconds", NONE, 3600),
    (CORE + "Taint", "effect", ("NoSchedule", "PreferNoSchedule", "NoExecute"), None),
    (CORE + "Toleration", "operator", ("Exists", "Equal", "Lt", "Gt"), None),
    (CORE + "Toleration", "effect", ("NoSchedule", "PreferNoSchedule", "NoExecute"), None),
    (CORE + "TopologySpreadConstraint", "whenUnsatisfiable", ("DoNotSchedule", "ScheduleAnyway"), None),
    (CORE + "NodeSelectorRequirement", "operator", ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"), None),
    (CORE + "Secret", "type", NONE, None),
    (CORE + "ServiceSpec", "type", ("ExternalName", "ClusterIP", "NodePort", "LoadBalancer"), "ClusterIP"),
    (CORE + "ServiceSpec", "sessionAffinity", ("ClientIP", "None"), "None"),
    (CORE + "ServiceSpec", "ipFamilyPolicy", ("SingleStack", "PreferDualStack", "RequireDualStack"), None),
    (CORE + "ServicePort", "protocol", PROTOCOLS, "TCP"),
    (CORE + "ClientIPConfig", "timeoutSeconds", NONE, 10800),
    (CORE + "EndpointPort", "protocol", PROTOCOLS, "TCP"),
    (APPS + "DeploymentSpec", "replicas", NONE, 1),
    (APPS + "DeploymentSpec", "revisionHistoryLimit", NONE, 10),
    (APPS + "DeploymentSpec", "progressDeadlineSeconds", NONE, 600),
    (APPS + "DeploymentStrategy", "type", ("Recreate", "RollingUpdate"), "RollingUpdate"),
    (APPS + "RollingUpdateDeployment", "maxSurge", NONE, "25%"),
    (APPS + "RollingUpdateDeployment", "maxUnavailable", NONE, "25%"),
    (APPS + "ReplicaSetSpec", "replicas", NONE, 1),
    (APPS + "DaemonSetSpec", "revisionHistoryLimit", NONE, 10),
    (APPS + "DaemonSetUpdateStrategy", "type", ("RollingUpdate", "OnDelete"), "RollingUpdate"),
    (APPS + "RollingUpdateDaemonSet", "maxUnavailable", NONE, 1),
    (APPS + "RollingUpdateDaemonSet", "maxSurge", NONE, 0),
    (APPS + "StatefulSetSpec", "replicas", NONE, 1),
    (APPS + "StatefulSetSpec", "revisionHistoryLimit", NONE, 10),
    (APPS + "StatefulSetSpec", "podManagementPolicy", ("OrderedReady", "Parallel"), "OrderedReady"),
    (APPS + "StatefulSetUpdateStrategy", "type", NONE, "RollingUpdate"),
    (APPS + "RollingUpdateStatefulSetStrategy", "partition", NONE, 0),
    (BATCH + "JobSpec", "suspend", NONE, False),
    (BATCH + "JobSpec", "completionMode", ("NonIndexed", "Indexed"), "NonIndexed"),
    (BATCH + "JobSpec", "podReplacementPolicy", ("TerminatingOrFailed", "Failed"), None),
    (NETWORKING + "NetworkPolicySpec", "policyTypes", NONE, None),
    (NETWORKING + "NetworkPolicyPort", "protocol", PROTOCOLS, "TCP"),
    (NETWORKING + "HTTPIngressPath", "pathType", ("Exact", "Prefix", "ImplementationSpecific"), None),
    (NETWORKING + "IngressClassParametersReference", "scope", ("Cluster", "Namespace"), "Cluster"),
    (DISCOVERY + "EndpointSlice", "addressType", ("IPv4", "IPv6", "FQDN"), None),
    (DISCOVERY + "EndpointPort", "protocol", NONE, "TCP"),
    (EXTENSIONS + "CustomResourceDefinitionSpec", "scope", ("Cluster", "Namespaced"), None),
    (EXTENSIONS + "CustomResourceConversion", "strategy", ("None", "Webhook"), None),
    (RBAC + "Subject", "kind", ("User", "Group", "ServiceAccount"), None),
)
