// Command gitseal-ssh is the SSH side of a fetch. gitseal-controller starts one process for each fetch over SSH: the
// standard input of the process is the TCP connection to the server, and its standard output is a Unix socket to the
// controller (frames.go). The process receives the private key and the known hosts over this socket, logs in, and runs
// the commands that the controller requests, such as `git-upload-pack`.
//
// What a server sends before it is authenticated comes from a stranger. So it is parsed here, by the library of the Go
// project, in a process that has one connection and one private key, and no access to files, to other addresses or to other
// programs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"gitseal.dev/confine"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// The limits of this process. A fetch copies data, and keeps little of it. Go's runtime reserves 64 MiB at once, which count for the
// limit of memory, although most of them are never used; so the garbage collector has a lower limit. The processor time includes the derivation of the
// key from a passphrase, whose cost the owner of the private key has chosen.
const (
	memory           = 96 << 20
	heap             = 24 << 20
	processorSeconds = 120
)

func main() {
	// This process ends with the thread of the controller that started it, which waits for the fetch.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		os.Exit(1)
	}
	// If memory runs out, the kernel should end this process first, and not the controller. It is no failure if this cannot be set.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	socket := os.Stdout
	c := &conn{in: bufio.NewReader(socket), out: bufio.NewWriter(socket)}
	if err := run(c, os.Stdin); err != nil {
		var refused *failure
		if !errors.As(err, &refused) {
			refused = &failure{Kind: brokenConnection, Detail: err.Error()}
		}
		refused.Detail = shortened(refused.Detail)
		if err := c.writeJSON(frameFailure, refused); err != nil {
			os.Exit(1)
		}
	}
}

// run logs in, and then runs one command after the other until the socket is closed.
func run(c *conn, server *os.File) error {
	asked, hosts, err := begin(c)
	if err != nil {
		return err
	}
	// From here on, this process reads what the server sends.
	if err := confine.Process(confine.Limits{Memory: memory, ProcessorSeconds: processorSeconds}); err != nil {
		return failed(cannotConfine, "%v", err)
	}
	debug.SetMemoryLimit(heap)
	client, err := login(asked, hosts, connection{server, asked})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.writeJSON(frameConnected, struct{}{}); err != nil {
		return err
	}
	return serve(c, client)
}

// begin reads the request and the known hosts.
func begin(c *conn) (*request, *knownHosts, error) {
	kind, body, err := c.read()
	if err != nil {
		return nil, nil, err
	}
	if kind != frameRequest {
		return nil, nil, fmt.Errorf("%w: kind %q where a request was expected", errFrame, kind)
	}
	asked := new(request)
	if err := json.Unmarshal(body, asked); err != nil {
		// The error could quote the private key.
		return nil, nil, fmt.Errorf("%w: the request cannot be read", errFrame)
	}
	hosts, err := readKnownHosts(asked.KnownHosts, asked.address())
	return asked, hosts, err
}

// serve runs the commands that the socket asks for, one after the other.
func serve(c *conn, client *ssh.Client) error {
	for {
		kind, body, err := c.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if kind != frameOpen {
			return fmt.Errorf("%w: kind %q where a command was expected", errFrame, kind)
		}
		if err := execute(c, client, string(body)); err != nil {
			return err
		}
	}
}
