package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.
# CronJob/nightly
# Set aside on request: Deployment/web:spec.template.spec.containers[0].securityContext.seLinuxOptions

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # CronJob/nightly spec.jobTemplate.spec.template.spec.containers[0]
    # image app:1
    # platform kubernetes-1: kubelet with containerd's CRI plugin, Kubernetes 1.27 and later
    {
        "name": "job",
        "command": ["/entry", "serve"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # the indexed job's number
            {"pattern": "JOB_COMPLETION_INDEX=([0-9]+)", "strategy": "re2", "required": true},
            # kubernetes-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # kubernetes-1: the pod's host name
            {"pattern": "HOSTNAME=nightly-[0-9]+-[0-9]+", "strategy": "re2", "required": false},
            # kubernetes-1: the API server
            {"pattern": "KUBERNETES_SERVICE_HOST=[0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_SERVICE_PORT(_HTTPS)?=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT(_[0-9]+_TCP)?=tcp://[][0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PROTO=tcp", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PORT=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_ADDR=[0-9a-f.:]+", "strategy": "re2", "required": false},
            # kubernetes-1
            {"pattern": "[A-Z_][A-Z0-9_]*_SERVICE_HOST=[0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "[A-Z_][A-Z0-9_]*_SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "[A-Z_][A-Z0-9_]*_PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://[][0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "[A-Z_][A-Z0-9_]*_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO=(tcp|udp|sctp)", "strategy": "re2", "required": false},
            {"pattern": "[A-Z_][A-Z0-9_]*_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "[A-Z_][A-Z0-9_]*_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR=[0-9a-f.:]+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # the termination message
            {"destination": "/tmp/end", "source": "sandbox:///termination-log/job", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            # a volume that the image declares
            {"destination": "/state", "source": "sandbox:///volumes/image/[0-9a-f]{64}", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            # kubernetes-1
            {"destination": "/etc/hosts", "source": "sandbox:///etc/hosts", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            {"destination": "/etc/hostname", "source": "sandbox:///etc/hostname", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            {"destination": "/etc/resolv.conf", "source": "sandbox:///etc/resolv\\.conf", "type": "bind", "options": ["rbind", "rprivate", "rw"]}
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
            "bounding": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "effective": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "inheritable": [],
            "permitted": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "ambient": []
        },
        "seccomp_profile_sha256": "",
        "allow_elevated": false,
        "working_dir": "/srv",
        "allow_stdio_access": true,
        "no_new_privileges": false,
        "attestation": []
    }
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
