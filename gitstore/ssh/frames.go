package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A frame is the length of its body (4 bytes, big-endian), its kind (1 byte) and its body. The Rust side is
// gitstore/src/transport/ssh.rs.
const (
	// frameRequest is sent once, by the controller, as the first frame: a request as JSON.
	frameRequest = 'R'
	// frameConnected means that the server and this process have authenticated each other.
	frameConnected = 'K'
	// frameFailure is a failure as JSON. Then the process ends.
	frameFailure = 'F'
	// frameOpen asks to run a command on the server. The body is the command.
	frameOpen = 'O'
	// frameData is data for the standard input of the command, or from its standard output.
	frameData = 'D'
	// frameClose means that the controller reads no more of the command's output, and sends no more input.
	frameClose = 'C'
	// frameExit means that the command has ended: an exit as JSON. It answers every frameOpen.
	frameExit = 'X'
)

// mostBytes is the size of the largest frame.
const mostBytes = 1 << 20

// errFrame means that the socket does not have the expected frames.
var errFrame = errors.New("unexpected frame")

// conn is the socket to the controller. Several goroutines may write frames.
type conn struct {
	in    *bufio.Reader
	write sync.Mutex
	out   *bufio.Writer
}

func (c *conn) read() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length > mostBytes {
		return 0, nil, fmt.Errorf("%w: %d bytes", errFrame, length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return head[4], body, err
}

func (c *conn) send(kind byte, body []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	var head [5]byte
	binary.BigEndian.PutUint32(head[:4], uint32(len(body)))
	head[4] = kind
	if _, err := c.out.Write(head[:]); err != nil {
		return err
	}
	if _, err := c.out.Write(body); err != nil {
		return err
	}
	return c.out.Flush()
}

func (c *conn) writeJSON(kind byte, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.send(kind, body)
}

// request says whom to connect to, and as whom.
type request struct {
	// Host is the name or address of the server, without a port.
	Host string `json:"host"`
	Port int    `json:"port"`
	User string `json:"user"`
	// Identity is the private key: a file in PEM form.
	Identity []byte `json:"identity"`
	// Passphrase is that of the private key; empty if it has none.
	Passphrase []byte `json:"passphrase"`
	// KnownHosts is the content of a known_hosts file.
	KnownHosts []byte `json:"knownHosts"`
}

// address is the host and the port of the server.
func (r *request) address() string { return net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) }

// exit says how a command ended.
type exit struct {
	// Status is the exit status; null if the connection or the command broke off.
	Status *int `json:"status"`
	// Said is the beginning of what the command wrote to standard error.
	Said string `json:"said,omitempty"`
}

// The kinds of failures.
const (
	hostKeyUnknown     = "HostKeyUnknown"
	hostKeyChanged     = "HostKeyChanged"
	hostKeyRevoked     = "HostKeyRevoked"
	hostCertificate    = "HostCertificateRefused"
	noCommonAlgorithm  = "NoCommonAlgorithm"
	notAccepted        = "KeyNotAccepted"
	unusableIdentity   = "UnusableIdentity"
	unusableKnownHosts = "UnusableKnownHosts"
	notSSH             = "NotSSH"
	brokenConnection   = "BrokenConnection"
	cannotConfine      = "CannotConfine"
)

// failure says why there is no connection.
type failure struct {
	Kind string `json:"kind"`
	// Detail says what is wrong in words.
	Detail string `json:"detail,omitempty"`
	// Key is the type of the key that was refused, and Fingerprint is its SHA-256 as `ssh-keygen -l` writes it.
	Key         string `json:"key,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	// Line is the line of known_hosts that would make the key known.
	Line string `json:"line,omitempty"`
	// Known lists the lines of known_hosts for this host.
	Known []known `json:"known,omitempty"`
}

// known is a line of known_hosts.
type known struct {
	Number      int    `json:"number"`
	Key         string `json:"key"`
	Fingerprint string `json:"fingerprint"`
}

func (f *failure) Error() string { return f.Kind + ": " + f.Detail }

func failed(kind, format string, values ...any) *failure {
	return &failure{Kind: kind, Detail: fmt.Sprintf(format, values...)}
}

// mostDetail is the length of the longest text of others that is told.
const mostDetail = 1000

// shortened makes one line of a text that may come from a server.
func shortened(text string) string {
	if len(text) > mostDetail {
		text = text[:mostDetail]
	}
	text = strings.ToValidUTF8(text, "?")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text))
}
