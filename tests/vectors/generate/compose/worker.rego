package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.
# service worker

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # compose services.worker
    # image app:1
    # platform nerdctl-1: nerdctl run and nerdctl compose, nerdctl 2.x
    {
        "name": "worker",
        "command": ["/bin/worker"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # nerdctl-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # nerdctl-1: the container's host name
            {"pattern": "HOSTNAME=worker\\.example", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # a volume that the image declares
            {"destination": "/state", "source": "sandbox:///volumes/image/[0-9a-f]{64}", "type": "bind", "options": ["rbind"]},
            # nerdctl-1
            {"destination": "/etc/resolv.conf", "source": "sandbox:///etc/resolv\\.conf", "type": "bind", "options": ["bind", "rprivate"]},
            {"destination": "/etc/hosts", "source": "sandbox:///etc/hosts", "type": "bind", "options": ["bind", "rprivate"]},
            {"destination": "/etc/hostname", "source": "sandbox:///etc/hostname", "type": "bind", "options": ["bind", "rprivate"]}
        ],
        "exec_processes": [],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "1000", "strategy": "id"},
            "group_idnames": [
                {"pattern": "7", "strategy": "id"},
                {"pattern": "44", "strategy": "id"},
                {"pattern": "1000", "strategy": "id"}
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
        "working_dir": "/work",
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
