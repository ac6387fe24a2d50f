package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const host = "git.example"

func address(port string) string { return net.JoinHostPort(host, port) }

func newKey(t *testing.T, keyType string) (crypto.PrivateKey, ssh.Signer) {
	t.Helper()
	var key crypto.PrivateKey
	var err error
	switch keyType {
	case ssh.KeyAlgoED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ssh.KeyAlgoECDSA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ssh.KeyAlgoECDSA521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

func encoded(t *testing.T, key crypto.PrivateKey, passphrase string) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// server is an SSH server on one end of a pipe. It has the host keys, and accepts one client key. A command is answered by `run`.
type server struct {
	hostKeys []ssh.Signer
	accepts  ssh.PublicKey
	run      func(command string, env map[string]string, channel ssh.Channel) (status uint32)
	// change changes the configuration, if it is not nil.
	change func(*ssh.ServerConfig)
}

func (s server) start(t *testing.T) net.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if s.accepts != nil && slices.Equal(key.Marshal(), s.accepts.Marshal()) {
			return nil, nil
		}
		return nil, errors.New("unknown key")
	}}
	for _, key := range s.hostKeys {
		config.AddHostKey(key)
	}
	if s.change != nil {
		s.change(config)
	}
	go func() {
		accepted, err := listener.Accept()
		if err != nil {
			return
		}
		_, channels, requests, err := ssh.NewServerConn(accepted, config)
		if err != nil {
			accepted.Close()
			return
		}
		go ssh.DiscardRequests(requests)
		for asked := range channels {
			channel, requests, err := asked.Accept()
			if err != nil {
				return
			}
			go s.serve(channel, requests)
		}
	}()
	client, err := net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (s server) serve(channel ssh.Channel, requests <-chan *ssh.Request) {
	env := map[string]string{}
	for asked := range requests {
		switch asked.Type {
		case "env":
			var pair struct{ Name, Value string }
			_ = ssh.Unmarshal(asked.Payload, &pair)
			env[pair.Name] = pair.Value
		case "exec":
			var command struct{ Text string }
			_ = ssh.Unmarshal(asked.Payload, &command)
			_ = asked.Reply(true, nil)
			go func() {
				status := s.run(command.Text, env, channel)
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
				channel.Close()
			}()
		default:
			_ = asked.Reply(false, nil)
		}
	}
}

// tried logs in, and returns the failure if there is one.
func tried(t *testing.T, s server, identity []byte, passphrase, hosts string) (*ssh.Client, *failure) {
	t.Helper()
	asked := &request{Host: host, Port: 22, User: "git", Identity: identity, Passphrase: []byte(passphrase), KnownHosts: []byte(hosts)}
	known, err := readKnownHosts(asked.KnownHosts, asked.address())
	var client *ssh.Client
	if err == nil {
		client, err = login(asked, known, s.start(t))
	}
	if err == nil {
		t.Cleanup(func() { client.Close() })
		return client, nil
	}
	refused := new(failure)
	if !errors.As(err, &refused) {
		t.Fatalf("this is no failure: %v", err)
	}
	return nil, refused
}

func line(names string, key ssh.PublicKey) string {
	return names + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + "\n"
}

func TestKeysOfAllTypesLogIn(t *testing.T) {
	for _, keyType := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA} {
		for _, passphrase := range []string{"", "hunter two"} {
			key, signer := newKey(t, keyType)
			_, hostKey := newKey(t, keyType)
			s := server{hostKeys: []ssh.Signer{hostKey}, accepts: signer.PublicKey()}
			identity := encoded(t, key, passphrase)
			hosts := line(host, hostKey.PublicKey())
			if _, refused := tried(t, s, identity, passphrase, hosts); refused != nil {
				t.Errorf("%s with the passphrase %q: %v", keyType, passphrase, refused)
			}
			if passphrase == "" {
				continue
			}
			for _, wrong := range []string{"", "hunter one"} {
				_, refused := tried(t, s, identity, wrong, hosts)
				if refused == nil || refused.Kind != unusableIdentity || !strings.Contains(refused.Detail, "pass") {
					t.Errorf("%s with the passphrase %q instead: %v", keyType, wrong, refused)
				}
			}
		}
	}
}

// A server that has keys of several types shows one that is known.
func TestTheKnownTypeIsOfferedFirst(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, ed := newKey(t, ssh.KeyAlgoED25519)
	_, ec := newKey(t, ssh.KeyAlgoECDSA256)
	_, old := newKey(t, ssh.KeyAlgoRSA)
	_, others := newKey(t, ssh.KeyAlgoED25519)
	s := server{hostKeys: []ssh.Signer{ed, ec, old}, accepts: signer.PublicKey()}
	for _, known := range []ssh.Signer{ed, ec, old} {
		hosts := line("other.example", others.PublicKey()) + line(host, known.PublicKey())
		if _, refused := tried(t, s, encoded(t, key, ""), "", hosts); refused != nil {
			t.Errorf("%s: %v", known.PublicKey().Type(), refused)
		}
	}
}

func TestHostsAreFoundInEveryFormOfALine(t *testing.T) {
	_, key := newKey(t, ssh.KeyAlgoED25519)
	_, other := newKey(t, ssh.KeyAlgoED25519)
	hashed := knownhosts.HashHostname(host)
	hashedPort := knownhosts.HashHostname("[" + host + "]:2222")
	table := []struct {
		names, port string
		kind        string
	}{
		{host, "22", ""},
		{"a.example," + host, "22", ""},
		{hashed, "22", ""},
		{"*.example", "22", ""},
		{"[" + host + "]:2222", "2222", ""},
		{hashedPort, "2222", ""},
		{"[" + host + "]:2222", "22", hostKeyUnknown},
		{hashedPort, "22", hostKeyUnknown},
		{"*.example,!" + host, "22", hostKeyUnknown},
		{"git.example.org", "22", hostKeyUnknown},
	}
	for _, row := range table {
		hosts, err := readKnownHosts([]byte("# a comment\n\n"+line(row.names, key.PublicKey())), address(row.port))
		if err != nil {
			t.Fatal(err)
		}
		refused := hosts.refusal(address(row.port), key.PublicKey())
		if row.kind == "" && refused != nil || row.kind != "" && (refused == nil || refused.Kind != row.kind) {
			t.Errorf("%s with port %s: %v", row.names, row.port, refused)
		}
		if row.kind != "" {
			continue
		}
		changed := hosts.refusal(address(row.port), other.PublicKey())
		if changed == nil || changed.Kind != hostKeyChanged || changed.Known[0].Number != 3 {
			t.Errorf("another key for %s: %+v", row.names, changed)
		}
	}
}

// The line that a refusal shows makes the server known.
func TestTheShownLineMakesAServerKnown(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoED25519)
	s := server{hostKeys: []ssh.Signer{hostKey}, accepts: signer.PublicKey()}
	_, refused := tried(t, s, encoded(t, key, ""), "", "")
	if refused == nil || refused.Kind != hostKeyUnknown || refused.Fingerprint != ssh.FingerprintSHA256(hostKey.PublicKey()) {
		t.Fatalf("%+v", refused)
	}
	if _, refused := tried(t, s, encoded(t, key, ""), "", refused.Line+"\n"); refused != nil {
		t.Error(refused)
	}
}

func TestAKeyOfAnotherTypeIsUnknownAndNotChanged(t *testing.T) {
	_, ed := newKey(t, ssh.KeyAlgoED25519)
	_, ec := newKey(t, ssh.KeyAlgoECDSA256)
	hosts, err := readKnownHosts([]byte(line(host, ed.PublicKey())), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	refused := hosts.refusal(address("22"), ec.PublicKey())
	if refused == nil || refused.Kind != hostKeyUnknown || len(refused.Known) != 1 || refused.Known[0].Key != ssh.KeyAlgoED25519 {
		t.Errorf("%+v", refused)
	}
}

func TestRevokedKeysAreRefusedWhateverOtherLinesSay(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoED25519)
	s := server{hostKeys: []ssh.Signer{hostKey}, accepts: signer.PublicKey()}
	hosts := line(host, hostKey.PublicKey()) + line("@revoked *", hostKey.PublicKey())
	_, refused := tried(t, s, encoded(t, key, ""), "", hosts)
	if refused == nil || refused.Kind != hostKeyRevoked || refused.Known[0].Number != 2 {
		t.Errorf("%+v", refused)
	}
}

// certified is a host certificate for a key.
func certified(t *testing.T, hostKey, authority ssh.Signer, change func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	certificate := &ssh.Certificate{
		Key: hostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{host}, ValidBefore: ssh.CertTimeInfinity,
	}
	change(certificate)
	if err := certificate.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(certificate, hostKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestHostCertificates(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoECDSA256)
	_, authority := newKey(t, ssh.KeyAlgoED25519)
	_, stranger := newKey(t, ssh.KeyAlgoED25519)
	now := uint64(time.Now().Unix())
	trusting := line("@cert-authority *.example", authority.PublicKey())
	table := []struct {
		name, hosts string
		change      func(*ssh.Certificate)
		by          ssh.Signer
		kind, says  string
	}{
		{"good", trusting, func(*ssh.Certificate) {}, authority, "", ""},
		{"with an end", trusting, func(c *ssh.Certificate) { c.ValidBefore = now + 3600 }, authority, "", ""},
		{"expired", trusting, func(c *ssh.Certificate) { c.ValidBefore = now - 10 }, authority, hostCertificate, "expired"},
		{"not yet", trusting, func(c *ssh.Certificate) { c.ValidAfter = now + 3600 }, authority, hostCertificate, "not yet valid"},
		{"other host", trusting, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"other.example"} }, authority, hostCertificate, "principal"},
		{"no host", trusting, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, authority, hostCertificate, "names no host"},
		{"of a user", trusting, func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, authority, hostCertificate, "type"},
		{"option", trusting, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }, authority, hostCertificate, "critical option"},
		{"by a stranger", trusting, func(*ssh.Certificate) {}, stranger, hostCertificate, "authorit"},
		{"for other hosts", line("@cert-authority *.example.org", authority.PublicKey()), func(*ssh.Certificate) {}, authority, hostKeyUnknown, ""},
		{"authority revoked", trusting + line("@revoked *", authority.PublicKey()), func(*ssh.Certificate) {}, authority, hostKeyRevoked, ""},
		{"key revoked", trusting + line("@revoked *", hostKey.PublicKey()), func(*ssh.Certificate) {}, authority, hostKeyRevoked, ""},
	}
	for _, row := range table {
		hostKeys := []ssh.Signer{certified(t, hostKey, row.by, row.change)}
		if row.kind == hostKeyUnknown {
			// Without an authority for this host, the server is asked for a plain key.
			hostKeys = append(hostKeys, hostKey)
		}
		_, refused := tried(t, server{hostKeys: hostKeys, accepts: signer.PublicKey()}, encoded(t, key, ""), "", row.hosts)
		switch {
		case row.kind == "" && refused != nil:
			t.Errorf("%s: %v", row.name, refused)
		case row.kind != "" && (refused == nil || refused.Kind != row.kind || !strings.Contains(refused.Detail, row.says)):
			t.Errorf("%s: %+v", row.name, refused)
		}
	}
}

func TestAnAuthorityIsNoServer(t *testing.T) {
	_, authority := newKey(t, ssh.KeyAlgoED25519)
	hosts, err := readKnownHosts([]byte(line("@cert-authority *", authority.PublicKey())), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal(address("22"), authority.PublicKey()); refused == nil {
		t.Error("the key of an authority was accepted as that of a server")
	}
}

func TestLinesThatCannotBeReadAreNamed(t *testing.T) {
	_, key := newKey(t, ssh.KeyAlgoED25519)
	good := line(host, key.PublicKey())
	for text, says := range map[string]string{
		good + "git.example ssh-ed25519 AAAA!\n":                    "line 2",
		good + "\n@strange " + good:                                 "line 3",
		good + strings.Repeat("#\n", mostKnownHosts):                "lines",
		good + host + " ssh-ed25519\n":                              "line 2",
		strings.Repeat("x", bufio.MaxScanTokenSize+1) + "\n" + good: "line 1",
	} {
		var refused *failure
		if _, err := readKnownHosts([]byte(text), address("22")); !errors.As(err, &refused) || !strings.Contains(refused.Detail, says) {
			t.Errorf("%.80q: %v", text, err)
		}
	}
	unknown := "git.example x-new-type@example AAAAC3NzaC1lZDI1NTE5\r\n" + strings.ReplaceAll(good, "\n", "\r\n")
	hosts, err := readKnownHosts([]byte(unknown), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal(address("22"), key.PublicKey()); refused != nil {
		t.Error(refused)
	}
}

func TestAnUnusableIdentityIsToldWithoutItsContent(t *testing.T) {
	_, signer := newKey(t, ssh.KeyAlgoED25519)
	for text, says := range map[string]string{
		"":        "no key found",
		"hunter2": "no key found",
		string(ssh.MarshalAuthorizedKey(signer.PublicKey())):                                   "public key",
		"-----BEGIN OPENSSH PRIVATE KEY-----\naHVudGVyMg==\n-----END OPENSSH PRIVATE KEY-----": "not a private key",
	} {
		_, err := readIdentity([]byte(text), nil)
		var refused *failure
		if !errors.As(err, &refused) || refused.Kind != unusableIdentity || !strings.Contains(refused.Detail, says) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the content is told: %v", err)
		}
	}
}

func TestAlgorithmsWithSHA1AreNotUsed(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoRSA)
	_, hostKey := newKey(t, ssh.KeyAlgoRSA)
	old, err := ssh.NewSignerWithAlgorithms(hostKey.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	for says, s := range map[string]server{
		"key exchange: it offers diffie-hellman-group14-sha1": {hostKeys: []ssh.Signer{hostKey}, change: func(c *ssh.ServerConfig) {
			c.KeyExchanges = []string{ssh.InsecureKeyExchangeDH14SHA1}
		}},
		"MAC: it offers hmac-sha1": {hostKeys: []ssh.Signer{hostKey}, change: func(c *ssh.ServerConfig) {
			c.Ciphers, c.MACs = []string{ssh.CipherAES128CTR}, []string{ssh.HMACSHA1}
		}},
		"host key: it offers ssh-rsa": {hostKeys: []ssh.Signer{old}},
		"signatures of RSA keys": {hostKeys: []ssh.Signer{hostKey}, change: func(c *ssh.ServerConfig) {
			c.PublicKeyAuthAlgorithms = []string{ssh.KeyAlgoRSA}
		}},
	} {
		s.accepts = signer.PublicKey()
		_, refused := tried(t, s, encoded(t, key, ""), "", line(host, hostKey.PublicKey()))
		if refused == nil || refused.Kind != noCommonAlgorithm || !strings.Contains(refused.Detail, says) {
			t.Errorf("%s: %v", says, refused)
		}
	}
}

func TestAKeyThatIsNotAcceptedIsNamed(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoED25519)
	s := server{hostKeys: []ssh.Signer{hostKey}}
	_, refused := tried(t, s, encoded(t, key, ""), "", line(host, hostKey.PublicKey()))
	if refused == nil || refused.Kind != notAccepted || refused.Fingerprint != ssh.FingerprintSHA256(signer.PublicKey()) {
		t.Errorf("%+v", refused)
	}
}

func TestWhatIsNoSSHServerIsNotQuoted(t *testing.T) {
	key, _ := newKey(t, ssh.KeyAlgoED25519)
	for _, text := range []string{"HTTP/1.1 400 hunter2\r\n\r\n", strings.Repeat("hunter2\r\n", 10000)} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.WriteString(theirs, text)
			theirs.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		asked := &request{Host: host, Port: 22, User: "git", Identity: encoded(t, key, "")}
		hosts, err := readKnownHosts(nil, address("22"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := login(asked, hosts, ours); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// The frames of two commands over one connection: the first is ended by the controller, the second by itself.
func TestCommandsRunOneAfterTheOther(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoED25519)
	run := func(command string, env map[string]string, channel ssh.Channel) uint32 {
		if command == "endless" {
			_, _ = io.WriteString(channel, env[protocol])
			_, _ = io.Copy(io.Discard, channel)
			return 0
		}
		_, _ = io.Copy(channel, io.LimitReader(channel, 5))
		_, _ = io.WriteString(channel.Stderr(), "such\nwords")
		return 7
	}
	s := server{hostKeys: []ssh.Signer{hostKey}, accepts: signer.PublicKey(), run: run}
	client, refused := tried(t, s, encoded(t, key, ""), "", line(host, hostKey.PublicKey()))
	if refused != nil {
		t.Fatal(refused)
	}
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- serve(&conn{in: bufio.NewReader(theirs), out: bufio.NewWriter(theirs)}, client)
	}()
	c := &conn{in: bufio.NewReader(ours), out: bufio.NewWriter(ours)}
	send := func(kind byte, body string) {
		t.Helper()
		if err := c.send(kind, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(expected byte) string {
		t.Helper()
		kind, body, err := c.read()
		if err != nil || kind != expected {
			t.Fatalf("%q instead of %q: %s %v", kind, expected, body, err)
		}
		return string(body)
	}
	send(frameOpen, "endless")
	if said := expect(frameData); said != version {
		t.Errorf("%s is %q", protocol, said)
	}
	send(frameClose, "")
	expect(frameExit)
	send(frameOpen, "other")
	send(frameData, "hello")
	if said := expect(frameData); said != "hello" {
		t.Errorf("%q", said)
	}
	var how exit
	if err := json.Unmarshal([]byte(expect(frameExit)), &how); err != nil {
		t.Fatal(err)
	}
	if how.Status == nil || *how.Status != 7 || how.Said != "such words" {
		t.Errorf("%+v", how)
	}
	send(frameClose, "")
	ours.Close()
	if err := <-ended; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestAChangedKeyIsComparedWithTheLineOfItsType(t *testing.T) {
	_, old := newKey(t, ssh.KeyAlgoRSA)
	_, ed := newKey(t, ssh.KeyAlgoED25519)
	_, changed := newKey(t, ssh.KeyAlgoED25519)
	hosts, err := readKnownHosts([]byte(line(host, old.PublicKey())+line(host, ed.PublicKey())), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	refused := hosts.refusal(address("22"), changed.PublicKey())
	if refused == nil || refused.Kind != hostKeyChanged || len(refused.Known) != 2 {
		t.Fatalf("%+v", refused)
	}
	if first := refused.Known[0]; first.Number != 2 || first.Fingerprint != ssh.FingerprintSHA256(ed.PublicKey()) {
		t.Errorf("%+v", refused.Known)
	}
}

// The time for a pattern does not grow exponentially with its stars, whatever the name of the host is.
func TestPatternsTakeLittleTime(t *testing.T) {
	_, key := newKey(t, ssh.KeyAlgoED25519)
	long := strings.Repeat("a.", 120) + "a"
	hard := strings.Repeat("*a", 60) + "*b"
	text := line(hard+","+strings.Repeat(hard+",", 400)+hard, key.PublicKey()) + line("*a*a*a*.a", key.PublicKey())
	hosts, err := readKnownHosts([]byte(text), net.JoinHostPort(long, "22"))
	if err != nil {
		t.Fatal(err)
	}
	other := nobodysKey
	if refused := hosts.refusal(net.JoinHostPort(long, "22"), other); refused == nil || len(refused.Known) != 1 || refused.Known[0].Number != 2 {
		t.Errorf("%+v", refused)
	}
}

func TestPatternsAndNamesAreThoseOfOpenSSH(t *testing.T) {
	_, key := newKey(t, ssh.KeyAlgoED25519)
	for names, isKnown := range map[string]bool{
		"Git.Example":               true,
		"GIT.*":                     true,
		"g?t.example":               true,
		"*":                         true,
		"git.example*":              true,
		"[*]:22":                    true,
		"[*]:2222":                  false,
		"*,!Git.*":                  false,
		"!*.org,*.example":          true,
		"!git.example":              false,
		"g[it.example*":             false,
		`*\`:                        false,
		"?":                         false,
		"*.example,other.example.b": true,
	} {
		hosts, err := readKnownHosts([]byte(line(names, key.PublicKey())), address("22"))
		if err != nil {
			t.Errorf("%s: %v", names, err)
			continue
		}
		if refused := hosts.refusal(address("22"), key.PublicKey()); (refused == nil) != isKnown {
			t.Errorf("%s: %v", names, refused)
		}
	}
	every := line("*", key.PublicKey())
	hosts, err := readKnownHosts([]byte(every), address("2222"))
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal(address("2222"), key.PublicKey()); refused == nil {
		t.Error("* is for another port than 22")
	}
	hosts, err = readKnownHosts([]byte(line("*::1", key.PublicKey())), "[fe80::1]:22")
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal("[fe80::1]:22", key.PublicKey()); refused != nil {
		t.Error(refused)
	}
}

func TestACertificateSignedWithSHA1IsRefused(t *testing.T) {
	key, signer := newKey(t, ssh.KeyAlgoED25519)
	_, hostKey := newKey(t, ssh.KeyAlgoED25519)
	_, authority := newKey(t, ssh.KeyAlgoRSA)
	for algorithm, isSafe := range map[string]bool{ssh.KeyAlgoRSA: false, ssh.KeyAlgoRSASHA256: true, ssh.KeyAlgoRSASHA512: true} {
		signs, err := ssh.NewSignerWithAlgorithms(authority.(ssh.AlgorithmSigner), []string{algorithm})
		if err != nil {
			t.Fatal(err)
		}
		certificate := certified(t, hostKey, signs, func(*ssh.Certificate) {})
		s := server{hostKeys: []ssh.Signer{certificate}, accepts: signer.PublicKey()}
		_, refused := tried(t, s, encoded(t, key, ""), "", line("@cert-authority *", authority.PublicKey()))
		switch {
		case isSafe && refused != nil:
			t.Errorf("%s: %v", algorithm, refused)
		case !isSafe && (refused == nil || refused.Kind != hostCertificate || !strings.Contains(refused.Detail, "signed it with ssh-rsa")):
			t.Errorf("%s: %v", algorithm, refused)
		}
	}
}

func TestAnAuthorityInTwoLinesIsNoServer(t *testing.T) {
	_, authority := newKey(t, ssh.KeyAlgoED25519)
	text := line("@cert-authority *", authority.PublicKey()) + line("@cert-authority "+host, authority.PublicKey())
	hosts, err := readKnownHosts([]byte(text), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal(address("22"), authority.PublicKey()); refused == nil {
		t.Error("the key of an authority was accepted as that of a server")
	}
	hosts, err = readKnownHosts([]byte(text+line(host, authority.PublicKey())), address("22"))
	if err != nil {
		t.Fatal(err)
	}
	if refused := hosts.refusal(address("22"), authority.PublicKey()); refused != nil {
		t.Error(refused)
	}
}

func TestARevokedKeyOfAnUnknownTypeIsAnError(t *testing.T) {
	_, key := newKey(t, ssh.KeyAlgoED25519)
	text := line(host, key.PublicKey()) + strings.Replace(line("@revoked *", key.PublicKey()), "ssh-ed25519", "ssh-ed2519", 1)
	var refused *failure
	if _, err := readKnownHosts([]byte(text), address("22")); !errors.As(err, &refused) || !strings.Contains(refused.Detail, "line 2") {
		t.Error(err)
	}
}
