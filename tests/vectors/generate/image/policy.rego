package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # image docker.io/library/app:1
    # platform ctr-1: containerd's ctr run, containerd 1.7 to 2.x
    {
        "name": "docker.io/library/app:1",
        "command": ["/entry", "--port", "80"],
        "env_rules": [
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # asked for on the command line
            {"pattern": "A=1 2", "strategy": "string", "required": true},
            # any value, on request
            {"pattern": "TOKEN=.*", "strategy": "re2", "required": false},
            # ctr-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # asked for on the command line
            {"destination": "/scratch", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid"]}
        ],
        "exec_processes": [
            {"command": ["/bin/true"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]}
        ],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "0", "strategy": "id"},
            "group_idnames": [
                {"pattern": "0", "strategy": "id"}
            ],
            "umask": "0022"
        },
        "capabilities": {
            "bounding": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "effective": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "inheritable": [],
            "permitted": ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"],
            "ambient": []
        },
        # the default profile of containerd-2.1
        "seccomp_profile_sha256": "2c602febb73ec45b677d83cacef28edd3144607b12f3bbac358718ff4691f40f",
        "allow_elevated": false,
        "working_dir": "/srv",
        "allow_stdio_access": true,
        "no_new_privileges": true,
        "attestation": ["/key/release"]
    }
]

# Signed fragments that may be loaded, and what of them counts.
fragments := [
    {"issuer": "did:x509:0:sha256:abc::eku:1.2.3", "feed": "example.org/feed", "minimum_svn": "1", "includes": ["containers", "fragments"]}
]

# What the host may see or leave out.
# statistics and process lists of containers
allow_properties_access := false
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
