package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.
# input.json

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # confcom containers[0]
    # image app:1
    # platform aci-1: Azure Container Instances, as az confcom 1.x and 2.x expect it
    {
        "name": "newer",
        "command": ["/bin/serve", "--all"],
        "env_rules": [
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # environmentVariables
            {"pattern": "EXACT=a.b", "strategy": "string", "required": true},
            {"pattern": "PATTERN=(v[0-9]+|none)", "strategy": "re2", "required": true},
            # aci-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # aci-1: the cloud's own
            {"pattern": "(?i)(FABRIC)_.+=.+", "strategy": "re2", "required": false},
            {"pattern": "HOSTNAME=.+", "strategy": "re2", "required": false},
            {"pattern": "T(E)?MP=.+", "strategy": "re2", "required": false},
            {"pattern": "FabricPackageFileName=.+", "strategy": "re2", "required": false},
            {"pattern": "HostedServiceName=.+", "strategy": "re2", "required": false},
            # aci-1: managed identity
            {"pattern": "IDENTITY_API_VERSION=.+", "strategy": "re2", "required": false},
            {"pattern": "IDENTITY_HEADER=.+", "strategy": "re2", "required": false},
            {"pattern": "IDENTITY_SERVER_THUMBPRINT=.+", "strategy": "re2", "required": false},
            # aci-1: restarts
            {"pattern": "azurecontainerinstance_restarted_by=.+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # azureFile
            {"destination": "/files", "source": "sandbox:///tmp/atlas/azureFileVolume/.+", "type": "bind", "options": ["rbind", "rshared", "ro"]},
            # emptyDir
            {"destination": "/empty", "source": "sandbox:///tmp/atlas/emptydir/.+", "type": "bind", "options": ["rbind", "rshared", "rw"]},
            # aci-1
            {"destination": "/etc/resolv.conf", "source": "sandbox:///tmp/atlas/resolvconf/.+", "type": "bind", "options": ["rbind", "rshared", "rw"]}
        ],
        "exec_processes": [
            # execProcesses
            {"command": ["/bin/true"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]}
        ],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "1001", "strategy": "id"},
            "group_idnames": [
                {"pattern": "3001", "strategy": "id"}
            ],
            "umask": "0022"
        },
        "capabilities": {"bounding": ["CAP_NET_ADMIN"], "effective": ["CAP_NET_ADMIN"], "inheritable": [], "permitted": ["CAP_NET_ADMIN"], "ambient": []},
        "seccomp_profile_sha256": "",
        "allow_elevated": false,
        "working_dir": "/srv",
        "allow_stdio_access": true,
        "no_new_privileges": false,
        "attestation": []
    },
    # Container 2
    # confcom containers[1]
    # image app:1
    # platform aci-1: Azure Container Instances, as az confcom 1.x and 2.x expect it
    {
        "name": "older",
        "command": ["rustc", "--help"],
        "env_rules": [
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # environmentVariables
            {"pattern": "PATH=/custom", "strategy": "string", "required": false},
            # aci-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # aci-1: the cloud's own
            {"pattern": "(?i)(FABRIC)_.+=.+", "strategy": "re2", "required": false},
            {"pattern": "HOSTNAME=.+", "strategy": "re2", "required": false},
            {"pattern": "T(E)?MP=.+", "strategy": "re2", "required": false},
            {"pattern": "FabricPackageFileName=.+", "strategy": "re2", "required": false},
            {"pattern": "HostedServiceName=.+", "strategy": "re2", "required": false},
            # aci-1: managed identity
            {"pattern": "IDENTITY_API_VERSION=.+", "strategy": "re2", "required": false},
            {"pattern": "IDENTITY_HEADER=.+", "strategy": "re2", "required": false},
            {"pattern": "IDENTITY_SERVER_THUMBPRINT=.+", "strategy": "re2", "required": false},
            # aci-1: restarts
            {"pattern": "azurecontainerinstance_restarted_by=.+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # secret
            {"destination": "/secret", "source": "sandbox:///tmp/atlas/secretsVolume/.+", "type": "bind", "options": ["rbind", "rshared", "ro"]},
            # aci-1
            {"destination": "/etc/resolv.conf", "source": "sandbox:///tmp/atlas/resolvconf/.+", "type": "bind", "options": ["rbind", "rshared", "rw"]}
        ],
        "exec_processes": [],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "0", "strategy": "id"},
            "group_idnames": [
                {"pattern": "0", "strategy": "id"}
            ],
            "umask": "0022"
        },
        "capabilities": {
            "bounding": ["CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM"],
            "effective": ["CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM"],
            "inheritable": [],
            "permitted": ["CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM"],
            "ambient": []
        },
        "seccomp_profile_sha256": "",
        "allow_elevated": true,
        "working_dir": "/src",
        "allow_stdio_access": true,
        "no_new_privileges": false,
        "attestation": []
    }
]

# Signed fragments that may be loaded, and what of them counts.
fragments := [
    {"issuer": "did:x509:0:sha256:abc::eku:1.2.3", "feed": "example.org/infra", "minimum_svn": "1", "includes": ["containers"]}
]

# What the host may see or leave out.
# statistics and process lists of containers
allow_properties_access := true
# stacks of the enforcer
allow_dump_stacks := false
# the enforcer's own log
allow_runtime_logging := false
# leave out variables that no rule accepts, instead of a denial
allow_environment_variable_dropping := false
# writable space that the host can read
allow_unencrypted_scratch := false
# leave out capabilities that are not listed, instead of a denial
allow_capability_dropping := false
# the network of the VM itself
allow_host_network := false

# Each of these is decided by the framework in the measured guest, from the data above.
mount_device := data.framework.mount_device
unmount_device := data.framework.unmount_device
rw_mount_device := data.framework.rw_mount_device
rw_unmount_device := data.framework.rw_unmount_device
mount_overlay := data.framework.mount_overlay
unmount_overlay := data.framework.unmount_overlay
create_container := data.framework.create_container
exec_in_container := data.framework.exec_in_container
exec_external := data.framework.exec_external
shutdown_container := data.framework.shutdown_container
signal_container_process := data.framework.signal_container_process
get_properties := data.framework.get_properties
dump_stacks := data.framework.dump_stacks
runtime_logging := data.framework.runtime_logging
load_fragment := data.framework.load_fragment
scratch_mount := data.framework.scratch_mount
scratch_unmount := data.framework.scratch_unmount
log_provider := data.framework.log_provider
load_transparency_trust_list := data.framework.load_transparency_trust_list
host_network := data.framework.host_network
reason := {"errors": data.framework.errors}
