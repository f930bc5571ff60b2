package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.
# Deployment/web
# Set aside on request: Deployment/web:spec.template.spec.containers[0].securityContext.seLinuxOptions

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # Deployment/web spec.template.spec.initContainers[0]
    # image app:1
    # platform kubernetes-1: kubelet with containerd's CRI plugin, Kubernetes 1.27 and later
    {
        "name": "migrate",
        "command": ["/bin/sh", "-c", "echo fast given $(LEVEL) > /data/out"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # ConfigMap settings
            {"pattern": "LEVEL=3", "strategy": "string", "required": true},
            {"pattern": "MODE=fast", "strategy": "string", "required": true},
            # Secret database
            {"pattern": "DB_password=s3cret", "strategy": "string", "required": true},
            # asked for on the command line
            {"pattern": "EXTRA=given", "strategy": "string", "required": true},
            # kubernetes-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # kubernetes-1: the pod's host name
            {"pattern": "HOSTNAME=web-[b-df-hj-np-tv-xz2-9]{1,10}-[b-df-hj-np-tv-xz2-9]{5}", "strategy": "re2", "required": false},
            # kubernetes-1: the API server
            {"pattern": "KUBERNETES_SERVICE_HOST=[0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_SERVICE_PORT(_HTTPS)?=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT(_[0-9]+_TCP)?=tcp://[][0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PROTO=tcp", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PORT=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_ADDR=[0-9a-f.:]+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # an empty directory, in the VM
            {"destination": "/data", "source": "sandbox:///volumes/empty-dir/data", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            # the service account's token
            {
                "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
                "source": "sandbox:///volumes/projected/kube-api-access-[b-df-hj-np-tv-xz2-9]{5}",
                "type": "bind",
                "options": ["rbind", "rprivate", "ro"]
            },
            # the termination message
            {"destination": "/dev/termination-log", "source": "sandbox:///termination-log/migrate", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
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
            "user_idname": {"pattern": "1000", "strategy": "id"},
            "group_idnames": [
                {"pattern": "7", "strategy": "id"},
                {"pattern": "1000", "strategy": "id"},
                {"pattern": "2000", "strategy": "id"},
                {"pattern": "3000", "strategy": "id"}
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
        # the default profile of containerd-2.1
        "seccomp_profile_sha256": "2c602febb73ec45b677d83cacef28edd3144607b12f3bbac358718ff4691f40f",
        "allow_elevated": false,
        "working_dir": "/srv",
        "allow_stdio_access": true,
        "no_new_privileges": false,
        "attestation": []
    },
    # Container 2
    # Deployment/web spec.template.spec.initContainers[1]
    # image app:1
    # platform kubernetes-1: kubelet with containerd's CRI plugin, Kubernetes 1.27 and later
    {
        "name": "proxy",
        "command": ["/entry", "proxy"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # kubernetes-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # kubernetes-1: the pod's host name
            {"pattern": "HOSTNAME=web-[b-df-hj-np-tv-xz2-9]{1,10}-[b-df-hj-np-tv-xz2-9]{5}", "strategy": "re2", "required": false},
            # kubernetes-1: the API server
            {"pattern": "KUBERNETES_SERVICE_HOST=[0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_SERVICE_PORT(_HTTPS)?=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT(_[0-9]+_TCP)?=tcp://[][0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PROTO=tcp", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PORT=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_ADDR=[0-9a-f.:]+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # the service account's token
            {
                "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
                "source": "sandbox:///volumes/projected/kube-api-access-[b-df-hj-np-tv-xz2-9]{5}",
                "type": "bind",
                "options": ["rbind", "rprivate", "ro"]
            },
            # the termination message
            {"destination": "/dev/termination-log", "source": "sandbox:///termination-log/proxy", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
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
                {"pattern": "0", "strategy": "id"},
                {"pattern": "2000", "strategy": "id"},
                {"pattern": "3000", "strategy": "id"}
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
        # the default profile of containerd-2.1
        "seccomp_profile_sha256": "2c602febb73ec45b677d83cacef28edd3144607b12f3bbac358718ff4691f40f",
        "allow_elevated": false,
        "working_dir": "/srv",
        "allow_stdio_access": true,
        "no_new_privileges": false,
        "attestation": []
    },
    # Container 3
    # Deployment/web spec.template.spec.containers[0]
    # image app:1
    # platform kubernetes-1: kubelet with containerd's CRI plugin, Kubernetes 1.27 and later
    {
        "name": "main",
        "command": ["/entry", "--port", "8080"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # set in the manifest
            {"pattern": "PORT=8080", "strategy": "string", "required": true},
            {"pattern": "EMPTY=", "strategy": "string", "required": true},
            # Secret database
            {"pattern": "PASSWORD=s3cret", "strategy": "string", "required": true},
            # the pod's status.podIP
            {"pattern": "POD_IP=([0-9a-f.:]+)", "strategy": "re2", "required": true},
            # the pod's metadata.labels['app']
            {"pattern": "APP=web", "strategy": "string", "required": true},
            # set in the manifest
            {"pattern": "URL=http://([0-9a-f.:]+):8080/\\?a=b\\.c", "strategy": "re2", "required": true},
            # the container's limits.memory
            {"pattern": "MEMORY=64", "strategy": "string", "required": true},
            # the container's requests.cpu
            {"pattern": "CPUS=2", "strategy": "string", "required": true},
            # any value, on request
            {"pattern": "SESSION=.*", "strategy": "re2", "required": false},
            # kubernetes-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # kubernetes-1: the pod's host name
            {"pattern": "HOSTNAME=web-[b-df-hj-np-tv-xz2-9]{1,10}-[b-df-hj-np-tv-xz2-9]{5}", "strategy": "re2", "required": false},
            # kubernetes-1: the API server
            {"pattern": "KUBERNETES_SERVICE_HOST=[0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_SERVICE_PORT(_HTTPS)?=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT(_[0-9]+_TCP)?=tcp://[][0-9a-f.:]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PROTO=tcp", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_PORT=[0-9]+", "strategy": "re2", "required": false},
            {"pattern": "KUBERNETES_PORT_[0-9]+_TCP_ADDR=[0-9a-f.:]+", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # an empty directory, in the VM
            {"destination": "/data", "source": "sandbox:///volumes/empty-dir/data", "type": "bind", "options": ["rbind", "rprivate", "ro"]},
            # configmap config: from the host
            {"destination": "/etc/app", "source": "sandbox:///volumes/configmap/config", "type": "bind", "options": ["rbind", "rprivate", "ro"]},
            {"destination": "/etc/one", "source": "sandbox:///volume-subpaths/config/main/2", "type": "bind", "options": ["rbind", "rprivate", "ro"]},
            # the service account's token
            {
                "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
                "source": "sandbox:///volumes/projected/kube-api-access-[b-df-hj-np-tv-xz2-9]{5}",
                "type": "bind",
                "options": ["rbind", "rprivate", "ro"]
            },
            # the termination message
            {"destination": "/dev/termination-log", "source": "sandbox:///termination-log/main", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            # a volume that the image declares
            {"destination": "/state", "source": "sandbox:///volumes/image/[0-9a-f]{64}", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            # kubernetes-1
            {"destination": "/etc/hosts", "source": "sandbox:///etc/hosts", "type": "bind", "options": ["rbind", "rprivate", "rw"]},
            {"destination": "/etc/hostname", "source": "sandbox:///etc/hostname", "type": "bind", "options": ["rbind", "rprivate", "ro"]},
            {"destination": "/etc/resolv.conf", "source": "sandbox:///etc/resolv\\.conf", "type": "bind", "options": ["rbind", "rprivate", "ro"]}
        ],
        "exec_processes": [
            # livenessProbe
            {"command": ["cat", "/data/8080", ""], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]},
            # lifecycle.preStop
            {"command": ["/bin/stop", "$(PORT)"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]},
            # asked for on the command line
            {"command": ["/bin/ls"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]}
        ],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "1000", "strategy": "id"},
            "group_idnames": [
                {"pattern": "7", "strategy": "id"},
                {"pattern": "1000", "strategy": "id"},
                {"pattern": "2000", "strategy": "id"},
                {"pattern": "3000", "strategy": "id"}
            ],
            "umask": "0022"
        },
        "capabilities": {"bounding": ["CAP_NET_BIND_SERVICE"], "effective": ["CAP_NET_BIND_SERVICE"], "inheritable": [], "permitted": ["CAP_NET_BIND_SERVICE"], "ambient": []},
        # the default profile of containerd-2.1
        "seccomp_profile_sha256": "56c20b1386a16976334ade26f9ae7685fd38bfa500a82677bf9660c46b691fa3",
        "allow_elevated": false,
        "working_dir": "/work",
        "allow_stdio_access": true,
        "no_new_privileges": true,
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
