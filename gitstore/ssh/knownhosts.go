package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// mostKnownHosts is the number of lines that a known_hosts file may have.
const mostKnownHosts = 4096

// knownHosts are the keys of servers that the Secret of a Repository names.
type knownHosts struct {
	// check is the library's rule. It knows hashed names, patterns, ports, @cert-authority and @revoked.
	check ssh.HostKeyCallback
	// authorities has the numbers of the lines with authorities.
	authorities map[int]bool
	// revoked has the number of the line for each revoked key.
	revoked map[string]int
}

// readKnownHosts reads a known_hosts file for the server at an address. Like OpenSSH, it skips keys of types that it does not know,
// unless they are revoked.
func readKnownHosts(content []byte, address string) (*knownHosts, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	hosts := &knownHosts{revoked: map[string]int{}, authorities: map[int]bool{}}
	var lines [][]byte
	scanner := bufio.NewScanner(bytes.NewReader(content))
	for scanner.Scan() {
		line := bytes.TrimSpace(scanner.Bytes())
		number := len(lines) + 1
		if number > mostKnownHosts {
			return nil, failed(unusableKnownHosts, "known_hosts has more than %d lines", mostKnownHosts)
		}
		if len(line) == 0 || line[0] == '#' {
			lines = append(lines, nil)
			continue
		}
		marker, _, key, _, _, err := ssh.ParseKnownHosts(line)
		if err != nil && isOfUnknownType(line) {
			if bytes.HasPrefix(line, []byte("@revoked")) {
				return nil, failed(unusableKnownHosts, "line %d of known_hosts revokes a key whose type is not known: correct the type, or remove the line", number)
			}
			lines = append(lines, nil)
			continue
		}
		if err != nil {
			return nil, failed(unusableKnownHosts, "line %d of known_hosts cannot be read: %s", number, why(err))
		}
		switch marker {
		case "":
		case "revoked":
			// The key is revoked for all hosts.
			hosts.revoked[string(key.Marshal())] = number
			lines = append(lines, slices.Clone(line))
			continue
		case "cert-authority":
			hosts.authorities[number] = true
		default:
			return nil, failed(unusableKnownHosts, "line %d of known_hosts begins with @%s, which is not known", number, marker)
		}
		lines = append(lines, forHost(line, host, port))
	}
	if err := scanner.Err(); err != nil {
		return nil, failed(unusableKnownHosts, "line %d of known_hosts is too long", len(lines)+1)
	}
	check, err := rule(bytes.Join(lines, []byte("\n")))
	if err != nil {
		return nil, failed(unusableKnownHosts, "known_hosts cannot be read: %s", why(err))
	}
	hosts.check = check
	return hosts, nil
}

// forHost is a line without a pattern: each pattern that is true for the host is replaced by the name of the host, and the others are
// left out. The time that the library takes for a pattern grows exponentially with its stars. Names are written in lower case, as
// hosts of URLs are.
func forHost(line []byte, host, port string) []byte {
	words := bytes.Fields(line)
	at := 0
	if words[0][0] == '@' {
		at = 1
	}
	if words[at][0] == '|' {
		return bytes.Join(words, []byte(" "))
	}
	var names []string
	for _, name := range strings.Split(strings.ToLower(string(words[at])), ",") {
		bare := strings.TrimPrefix(name, "!")
		if !strings.ContainsAny(bare, "*?") {
			names = append(names, name)
			continue
		}
		pattern, patternPort, err := net.SplitHostPort(bare)
		if err != nil {
			pattern, patternPort = bare, "22"
		}
		// Only * and ? have a meaning.
		pattern = strings.NewReplacer(`\`, `\\`, "[", `\[`).Replace(pattern)
		if is, err := path.Match(pattern, host); err == nil && is && patternPort == port {
			names = append(names, name[:len(name)-len(bare)]+knownhosts.Normalize(net.JoinHostPort(host, port)))
		}
	}
	if len(names) == 0 {
		return nil
	}
	words[at] = []byte(strings.Join(names, ","))
	return bytes.Join(words, []byte(" "))
}

// isOfUnknownType is true if a line has the three parts of a key that this library has no code for.
func isOfUnknownType(line []byte) bool {
	words := bytes.Fields(line)
	if len(words) > 0 && words[0][0] == '@' {
		words = words[1:]
	}
	return len(words) >= 3 && !slices.Contains(keyTypes, string(words[1])) && !bytes.ContainsAny(words[1], "/+=")
}

// why is the library's text without its name.
func why(err error) string {
	text := err.Error()
	for _, name := range []string{"ssh: ", "knownhosts: ", "handshake failed: ", "ssh: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

// rule is the library's rule for the content of a known_hosts file. The library reads files only, so it gets the content
// through a pipe.
func rule(content []byte) (ssh.HostKeyCallback, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	go func() {
		_, _ = io.Copy(writer, bytes.NewReader(append(content, '\n')))
		writer.Close()
	}()
	check, err := knownhosts.New(fmt.Sprintf("/proc/self/fd/%d", reader.Fd()))
	if err != nil {
		// The text begins with the name of the pipe.
		return nil, errors.New(strings.TrimPrefix(err.Error(), fmt.Sprintf("knownhosts: /proc/self/fd/%d:", reader.Fd())))
	}
	return check, nil
}

// keyTypes are the types of host keys, in the order in which they are preferred.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.InsecureKeyAlgoDSA,
}

// algorithms lists the host key algorithms for a type of key. A key of the type ssh-rsa signs with SHA-2 only.
func algorithms(keyType string) []string {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return []string{keyType}
	default:
		return nil
	}
}

// certificates are the algorithms of host certificates.
var certificates = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// signatures are the algorithms with which an authority may have signed a certificate: all but those with SHA-1 or DSA.
var signatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
}

// nobodysKey is a key that no server has.
var nobodysKey = func() ssh.PublicKey {
	key, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		panic(err)
	}
	return key
}()

// noAddress is given to the library where only the name of a host counts.
var noAddress = &net.TCPAddr{IP: net.IPv4zero}

// lines are the lines of known_hosts for a host.
func lines(check ssh.HostKeyCallback, address string) []knownhosts.KnownKey {
	var unknown *knownhosts.KeyError
	if errors.As(check(address, noAddress, nobodysKey), &unknown) {
		return unknown.Want
	}
	return nil
}

// offered lists the algorithms of host keys, those first with which a key in known_hosts can be met: first certificates if
// there is an authority for this host, then the types of the host's lines, then all others. So a server that has keys of several
// types shows one that is known, and an unknown server shows a short one.
func (k *knownHosts) offered(address string) []string {
	var all []string
	known := lines(k.check, address)
	isOfAuthority := func(line knownhosts.KnownKey) bool { return k.authorities[line.Line] }
	// A signature with DSA is not accepted.
	if slices.ContainsFunc(known, func(line knownhosts.KnownKey) bool {
		return isOfAuthority(line) && line.Key.Type() != ssh.InsecureKeyAlgoDSA
	}) {
		all = append(all, certificates...)
	}
	known = slices.DeleteFunc(known, isOfAuthority)
	for _, keyType := range keyTypes {
		if slices.ContainsFunc(known, func(line knownhosts.KnownKey) bool { return line.Key.Type() == keyType }) {
			all = append(all, algorithms(keyType)...)
		}
	}
	for _, keyType := range keyTypes {
		all = append(all, algorithms(keyType)...)
	}
	var once []string
	for _, name := range all {
		if !slices.Contains(once, name) {
			once = append(once, name)
		}
	}
	return once
}

// refusal says why a server's key is not accepted; nil if it is.
func (k *knownHosts) refusal(address string, key ssh.PublicKey) *failure {
	err := k.check(address, noAddress, key)
	if err == nil {
		return k.refusedAuthority(address, key)
	}
	refused := &failure{Key: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		refused.Kind = hostKeyRevoked
		refused.Known = []known{about(revoked.Revoked)}
	case errors.As(err, &unknown):
		refused.Kind = hostKeyUnknown
		refused.Line = knownhosts.Line([]string{knownhosts.Normalize(address)}, key)
		for _, line := range unknown.Want {
			if k.authorities[line.Line] {
				continue
			}
			refused.Known = append(refused.Known, about(line))
			if line.Key.Type() == key.Type() {
				refused.Kind = hostKeyChanged
			}
		}
		// The first line is the one to replace.
		isShown := func(line known) bool { return line.Key == refused.Key }
		if first := slices.IndexFunc(refused.Known, isShown); first > 0 {
			refused.Known[0], refused.Known[first] = refused.Known[first], refused.Known[0]
		}
	default:
		refused.Kind = hostCertificate
		refused.Detail = why(err)
		if certificate, is := key.(*ssh.Certificate); is {
			refused.Fingerprint = ssh.FingerprintSHA256(certificate.Key)
			for _, signer := range []ssh.PublicKey{certificate.SignatureKey, certificate.Key} {
				if number, is := k.revoked[string(signer.Marshal())]; is {
					refused.Kind = hostKeyRevoked
					refused.Known = []known{{Number: number, Key: signer.Type(), Fingerprint: ssh.FingerprintSHA256(signer)}}
				}
			}
		}
	}
	return refused
}

// refusedAuthority refuses the key of an authority as the key of a server, and a certificate that names no host, or that was signed
// with an algorithm that is not safe. The library accepts all of these, and OpenSSH does not.
func (k *knownHosts) refusedAuthority(address string, key ssh.PublicKey) *failure {
	certificate, is := key.(*ssh.Certificate)
	if is && len(certificate.ValidPrincipals) == 0 {
		refused := failed(hostCertificate, "it names no host")
		refused.Key, refused.Fingerprint = key.Type(), ssh.FingerprintSHA256(certificate.Key)
		return refused
	}
	if is && !slices.Contains(signatures, certificate.Signature.Format) {
		refused := failed(hostCertificate, "its authority signed it with %s, which is not safe", certificate.Signature.Format)
		refused.Key, refused.Fingerprint = key.Type(), ssh.FingerprintSHA256(certificate.Key)
		return refused
	}
	if is {
		return nil
	}
	for _, line := range lines(k.check, address) {
		if bytes.Equal(line.Key.Marshal(), key.Marshal()) && !k.authorities[line.Line] {
			return nil
		}
	}
	refused := failed(hostCertificate, "it is the key of an authority, and not of a server")
	refused.Key, refused.Fingerprint = key.Type(), ssh.FingerprintSHA256(key)
	return refused
}

func about(line knownhosts.KnownKey) known {
	return known{Number: line.Line, Key: line.Key.Type(), Fingerprint: ssh.FingerprintSHA256(line.Key)}
}
