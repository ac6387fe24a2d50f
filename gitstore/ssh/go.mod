module gitseal.dev/ssh

go 1.26.0

require (
	gitseal.dev/confine v0.0.0
	// SSH: the protocol, private keys, known_hosts and host certificates. The Go project maintains it.
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/elastic/go-seccomp-bpf v1.6.0 // indirect
	github.com/landlock-lsm/go-landlock v0.11.2 // indirect
	golang.org/x/net v0.60.0 // indirect
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.78 // indirect
)

replace gitseal.dev/confine => ../../worker/confine
