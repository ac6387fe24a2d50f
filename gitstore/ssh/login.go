package main

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// connection is the TCP connection to the server. The controller opened it, and closes it when the time is over.
type connection struct {
	*os.File
	to *request
}

func (connection) LocalAddr() net.Addr              { return noAddress }
func (connection) RemoteAddr() net.Addr             { return noAddress }
func (connection) SetDeadline(time.Time) error      { return nil }
func (connection) SetReadDeadline(time.Time) error  { return nil }
func (connection) SetWriteDeadline(time.Time) error { return nil }

// login makes an SSH connection: the server proves that it has a key of known_hosts, then this process proves that it has the
// private key.
func login(asked *request, hosts *knownHosts, server net.Conn) (*ssh.Client, error) {
	signer, err := readIdentity(asked.Identity, asked.Passphrase)
	if err != nil {
		return nil, err
	}
	address := asked.address()
	var refused *failure
	isKnown := false
	config := &ssh.ClientConfig{
		Config: transport(),
		User:   asked.User,
		Auth:   []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if refused = hosts.refusal(address, key); refused != nil {
				return refused
			}
			isKnown = true
			return nil
		},
		HostKeyAlgorithms: hosts.offered(address),
		ClientVersion:     "SSH-2.0-gitseal",
	}
	made, channels, requests, err := ssh.NewClientConn(server, address, config)
	if err == nil {
		return ssh.NewClient(made, channels, requests), nil
	}
	var none *ssh.AlgorithmNegotiationError
	switch {
	case refused != nil:
		return nil, refused
	case isKnown && strings.Contains(err.Error(), "no common public key signature algorithm"):
		return nil, failed(noCommonAlgorithm, "signatures of RSA keys: it does not say that it accepts those with SHA-2. An ed25519 key needs none of them")
	case errors.As(err, &none):
		return nil, failed(noCommonAlgorithm, "%s: it offers %s", none.What, strings.Join(none.RequestedAlgorithms, ", "))
	case isKnown && strings.Contains(err.Error(), "unable to authenticate"):
		refused := failed(notAccepted, "%s", why(err))
		refused.Key, refused.Fingerprint = signer.PublicKey().Type(), ssh.FingerprintSHA256(signer.PublicKey())
		return nil, refused
	case strings.Contains(err.Error(), "overflow reading version string"), strings.Contains(err.Error(), "invalid version"):
		// What answers is not shown, because it may be anything.
		return nil, failed(notSSH, "it does not answer as an SSH server does")
	case errors.Is(err, io.EOF):
		return nil, failed(brokenConnection, "it closed the connection before the login was complete")
	default:
		return nil, failed(brokenConnection, "%s", why(err))
	}
}

// transport lists the algorithms of a connection: all that the library has and calls safe. Its default also has some with SHA-1.
func transport() ssh.Config {
	all := ssh.SupportedAlgorithms()
	isOld := func(name string) bool { return name == ssh.HMACSHA1 }
	return ssh.Config{KeyExchanges: all.KeyExchanges, Ciphers: all.Ciphers, MACs: slices.DeleteFunc(all.MACs, isOld)}
}

// readIdentity reads a private key.
func readIdentity(pem, passphrase []byte) (ssh.Signer, error) {
	if len(pem) == 0 || pem[len(pem)-1] != '\n' {
		pem = append(pem, '\n')
	}
	signer, err := ssh.ParsePrivateKey(pem)
	var encrypted *ssh.PassphraseMissingError
	if errors.As(err, &encrypted) {
		if len(passphrase) == 0 {
			return nil, failed(unusableIdentity, "identity is encrypted, and the Secret has no password: add the passphrase as password")
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, passphrase)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, failed(unusableIdentity, "password is not the passphrase of identity")
		}
	}
	if err != nil {
		if _, _, _, _, isPublic := ssh.ParseAuthorizedKey(pem); isPublic == nil {
			return nil, failed(unusableIdentity, "identity is a public key: the private key is needed")
		}
		// The texts of the library name the format, and never the content.
		return nil, failed(unusableIdentity, "identity is not a private key that gitseal can read: %s", why(err))
	}
	names := algorithms(signer.PublicKey().Type())
	all, is := signer.(ssh.AlgorithmSigner)
	if names == nil || !is {
		return nil, failed(unusableIdentity, "identity has the type %s, which is not used: make an ed25519 key", signer.PublicKey().Type())
	}
	// A key of the type ssh-rsa could also sign with SHA-1.
	return ssh.NewSignerWithAlgorithms(all, names)
}
