package policy

# Made by 'parma policy generate'. The SHA-256 of this text, every byte of it, is the HOST_DATA of the
# attestation report of a VM that enforces it.
# service web

api_version := "0.12.0"
framework_version := "0.5.0"

# What may run, and how. Whatever differs in anything is denied.
containers := [
    # Container 1
    # compose services.web
    # image app:1
    # platform nerdctl-1: nerdctl run and nerdctl compose, nerdctl 2.x
    {
        "name": "web",
        "command": ["/entry", "serve", "--name", "two words", "--level", "3", "#", "not", "a", "comment"],
        "env_rules": [
            # containerd's default
            {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
            # the image's environment
            {"pattern": "LANG=C", "strategy": "string", "required": true},
            # env_file service.env
            {"pattern": "SHARED=literal $x", "strategy": "string", "required": true},
            # environment
            {"pattern": "LEVEL=3 # not a comment", "strategy": "string", "required": true},
            # env_file service.env
            {"pattern": "PLAIN=a b", "strategy": "string", "required": true},
            # environment
            {"pattern": "PORT=8080", "strategy": "string", "required": true},
            {"pattern": "MODE=on", "strategy": "string", "required": true},
            {"pattern": "PRICE=$5 none", "strategy": "string", "required": true},
            # nerdctl-1: with a terminal
            {"pattern": "TERM=xterm", "strategy": "string", "required": false},
            # nerdctl-1: the container's host name
            {"pattern": "HOSTNAME=web", "strategy": "re2", "required": false}
        ],
        "layers": ["34f3d5abc406e02ca46aee1bb95c0a657333a39204e8bc117c72317d016cb7b6", "2a77a1f49b09c0723d6d9541e4f5db88e4976673e149c81329346f699f21745f"],
        "mounts": [
            # volume shop_data
            {"destination": "/data", "source": "sandbox:///volumes/nerdctl/shop_data", "type": "bind", "options": ["rbind"]},
            # volume shared-by-all
            {"destination": "/shared", "source": "sandbox:///volumes/nerdctl/shared-by-all", "type": "bind", "options": ["ro", "rbind"]},
            # in the VM's memory
            {"destination": "/cache", "source": "tmpfs", "type": "tmpfs", "options": ["noexec", "nosuid", "nodev", "size=1048576", "mode=1777"]},
            # an anonymous volume
            {"destination": "/anonymous", "source": "sandbox:///volumes/nerdctl/[0-9a-f]{64}", "type": "bind", "options": ["rbind"]},
            # config settings: from the host
            {"destination": "/settings", "source": "sandbox:///configs/settings", "type": "bind", "options": ["ro", "rprivate", "rbind"]},
            # secret key: from the host
            {"destination": "/run/secrets/app.key", "source": "sandbox:///secrets/key", "type": "bind", "options": ["ro", "rprivate", "rbind"]},
            # in the VM's memory
            {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["exec", "nosuid", "nodev", "size=64m"]},
            # a volume that the image declares
            {"destination": "/state", "source": "sandbox:///volumes/image/[0-9a-f]{64}", "type": "bind", "options": ["rbind"]},
            # nerdctl-1
            {"destination": "/etc/resolv.conf", "source": "sandbox:///etc/resolv\\.conf", "type": "bind", "options": ["bind", "rprivate"]},
            {"destination": "/etc/hosts", "source": "sandbox:///etc/hosts", "type": "bind", "options": ["bind", "rprivate"]},
            {"destination": "/etc/hostname", "source": "sandbox:///etc/hostname", "type": "bind", "options": ["bind", "rprivate"]}
        ],
        "exec_processes": [
            # the health check
            {"command": ["/bin/check", "now"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]},
            {"command": ["/bin/sh", "-c", "/bin/check now"], "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15]}
        ],
        "signals": [1, 2, 3, 6, 9, 10, 12, 14, 15],
        "user": {
            "user_idname": {"pattern": "0", "strategy": "id"},
            "group_idnames": [
                {"pattern": "0", "strategy": "id"}
            ],
            "umask": "0022"
        },
        "capabilities": {"bounding": ["CAP_NET_BIND_SERVICE"], "effective": ["CAP_NET_BIND_SERVICE"], "inheritable": [], "permitted": ["CAP_NET_BIND_SERVICE"], "ambient": []},
        "seccomp_profile_sha256": "5adef9c496a7187160ed2f54401c06e432bb7b8f4213474fcfee925d9f9a81f0",
        "allow_elevated": false,
        "working_dir": "/srv",
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
