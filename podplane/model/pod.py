"""Pod as the kubelet and the planners see it (core/v1, the names and defaults of its OpenAPI document)."""

from __future__ import annotations

from typing import Any

import msgspec

from podplane.model.objects import Metadata, Model

Port = int | str
"""A number, or the name of a container's port."""


class ObjectFieldSelector(Model, frozen=True):
    """A field of the pod."""

    field_path: str


class ResourceFieldSelector(Model, frozen=True):
    """A limit or request of a container."""

    resource: str
    container_name: str = ""
    divisor: str | int = "0"


class KeySelector(Model, frozen=True):
    """One key of a ConfigMap or Secret."""

    key: str
    name: str = ""
    optional: bool = False


class EnvVarSource(Model, frozen=True):
    """Where the value of a variable comes from."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Model, frozen=True):
    """One environment variable of a container."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class SourceName(Model, frozen=True):
    """A whole ConfigMap or Secret."""

    name: str = ""
    optional: bool = False


class EnvFromSource(Model, frozen=True):
    """All keys of a ConfigMap or Secret as variables."""

    prefix: str = ""
    config_map_ref: SourceName | None = None
    secret_ref: SourceName | None = None


class ContainerPort(Model, frozen=True):
    """One declared port of a container."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class VolumeMount(Model, frozen=True):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: str = ""


class HttpHeader(Model, frozen=True):
    """One header of a probe's request."""

    name: str
    value: str = ""


class HttpGet(Model, frozen=True):
    """An HTTP request; the host is the pod unless it is said."""

    port: Port
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Model, frozen=True):
    """A TCP connection."""

    port: Port
    host: str = ""


class Grpc(Model, frozen=True):
    """A call of grpc.health.v1.Health/Check; the port is a number."""

    port: int
    service: str | None = ""


class ExecAction(Model, frozen=True):
    """A command in the container."""

    command: tuple[str, ...] = ()


class Sleep(Model, frozen=True):
    """A pause."""

    seconds: int = 0


class Handler(Model, frozen=True):
    """A lifecycle hook: one of these."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    sleep: Sleep | None = None


class Probe(Model, frozen=True):
    """A probe: one of the handlers; times in seconds."""

    exec: ExecAction | None = None
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: Grpc | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Lifecycle(Model, frozen=True):
    """What is done after a container's start and before its end."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None
    stop_signal: str = ""


class Capabilities(Model, frozen=True):
    """Capabilities, by name with or without CAP_."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Model, frozen=True):
    """Which system calls are filtered."""

    type: str = ""
    localhost_profile: str = ""


class AppArmorProfile(Model, frozen=True):
    """What AppArmor allows."""

    type: str = ""


class SecurityContext(Model, frozen=True):
    """What a container may do."""

    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None
    se_linux_options: dict[str, str] = {}
    proc_mount: str = ""
    windows_options: dict[str, Any] = {}


class PodSysctl(Model, frozen=True):
    """A sysctl of the pod's own namespaces."""

    name: str = ""
    value: str = ""


class PodSecurityContext(Model, frozen=True):
    """What the containers of a pod may do, and who they are."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    supplemental_groups_policy: str = ""
    se_linux_change_policy: str = ""
    windows_options: dict[str, Any] = {}
    supplemental_groups: tuple[int, ...] = ()
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None
    se_linux_options: dict[str, str] = {}
    sysctls: tuple[PodSysctl, ...] = ()


class Container(Model, frozen=True):
    """One container of a pod; one among the init containers with `restart_policy` Always is a sidecar."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    working_dir: str = ""
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: str = ""
    restart_policy_rules: tuple[dict[str, Any], ...] = ()
    target_container_name: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: dict[str, Any] = {}
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    security_context: SecurityContext = SecurityContext()


class KeyToPath(Model, frozen=True):
    """One key of a source, and the file that it becomes."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Model, frozen=True):
    """Keys of a ConfigMap as files."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool = False


class SecretVolume(Model, frozen=True):
    """Keys of a Secret as files (as a volume its name is `secretName`, in a projection `name`)."""

    secret_name: str = ""
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int | None = None
    optional: bool = False


class DownwardFile(Model, frozen=True):
    """One file with a field of the pod."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardVolume(Model, frozen=True):
    """Fields of the pod as files."""

    items: tuple[DownwardFile, ...] = ()
    default_mode: int | None = None


class TokenProjection(Model, frozen=True):
    """A token of the pod's ServiceAccount as a file."""

    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class Projection(Model, frozen=True):
    """One source of a projected volume."""

    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: TokenProjection | None = None


class ProjectedVolume(Model, frozen=True):
    """Several sources in one folder."""

    sources: tuple[Projection, ...] = ()
    default_mode: int | None = None


class EmptyDir(Model, frozen=True):
    """A folder that lives as long as the pod."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPath(Model, frozen=True):
    """A file or folder of the machine."""

    path: str = ""
    type: str = ""


class Volume(Model, frozen=True):
    """A volume: one of these. Any other kind is seen by its absence."""

    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolume | None = None


class HostAlias(Model, frozen=True):
    """A line of /etc/hosts."""

    ip: str
    hostnames: tuple[str, ...] = ()


class DnsOption(Model, frozen=True):
    """An option of the resolver."""

    name: str
    value: str | None = None


class DnsConfig(Model, frozen=True):
    """What is added to /etc/resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class ReadinessGate(Model, frozen=True):
    """A condition that somebody else must set before the pod is ready."""

    condition_type: str


class PodSpec(Model, frozen=True):
    """Pod.spec, as far as the runtime and the planners read it."""

    node_name: str = ""
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    share_process_namespace: bool = False
    os: dict[str, str] = {}
    priority: int | None = None
    priority_class_name: str = ""
    runtime_class_name: str = ""
    resources: dict[str, Any] = {}
    resource_claims: tuple[dict[str, Any], ...] = ()
    scheduling_group: dict[str, Any] = {}
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    hostname: str = ""
    subdomain: str = ""
    hostname_override: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(default=False, name="setHostnameAsFQDN")
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig = DnsConfig()
    host_aliases: tuple[HostAlias, ...] = ()
    enable_service_links: bool = True
    service_account_name: str = ""
    readiness_gates: tuple[ReadinessGate, ...] = ()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    security_context: PodSecurityContext = PodSecurityContext()

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """The containers of all kinds."""
        return (*self.init_containers, *self.containers, *self.ephemeral_containers)


class PodIP(Model, frozen=True):
    """One entry of Pod.status.podIPs."""

    ip: str = ""


class ContainerStatus(Model, frozen=True):
    """What the last kubelet said of a container."""

    name: str
    restart_count: int = 0
    container_id: str = msgspec.field(default="", name="containerID")
    state: dict[str, Any] = {}
    last_state: dict[str, Any] = {}


class PodCondition(Model, frozen=True):
    """One condition of a pod."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class PodStatus(Model, frozen=True):
    """Pod.status, as far as it comes back in: phase, addresses, and how often containers were started."""

    phase: str = "Pending"
    start_time: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    conditions: tuple[PodCondition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()

    @property
    def all_container_statuses(self) -> tuple[ContainerStatus, ...]:
        """Those of all containers."""
        return (*self.init_container_statuses, *self.container_statuses, *self.ephemeral_container_statuses)


class Pod(Model, frozen=True):
    """core/v1 Pod."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, first family first; empty until it has a sandbox."""
        return tuple(p.ip for p in self.status.pod_ips)
