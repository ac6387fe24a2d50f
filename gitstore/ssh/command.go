package main

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// protocol is the variable with which Git requests a version of its protocol. A server may ignore it.
const protocol, version = "GIT_PROTOCOL", "version=2"

// mostSaid is how many bytes of a command's standard error are kept.
const mostSaid = 4096

// execute runs a command on the server, and copies data in both directions until the controller sends frameClose. When the
// command has ended, it sends frameExit.
func execute(c *conn, client *ssh.Client, command string) error {
	session, err := client.NewSession()
	if err != nil {
		return failed(brokenConnection, "it opens no channel: %s", why(err))
	}
	defer session.Close()
	// Many servers allow few variables or none, so no answer is waited for.
	variable := ssh.Marshal(struct{ Name, Value string }{protocol, version})
	if _, err := session.SendRequest("env", false, variable); err != nil {
		return failed(brokenConnection, "it takes no request: %s", why(err))
	}
	input, err := session.StdinPipe()
	if err != nil {
		return err
	}
	said := new(beginning)
	session.Stdout, session.Stderr = output{c}, said
	if err := session.Start(command); err != nil {
		return failed(brokenConnection, "it runs no command: %s", why(err))
	}
	ended := make(chan error, 1)
	go func() {
		done := exit{Status: status(session.Wait()), Said: shortened(said.text())}
		ended <- c.writeJSON(frameExit, done)
	}()
	if err := feed(c, input); err != nil {
		return err
	}
	session.Close()
	return <-ended
}

// feed sends the frames with data to the command, until frameClose.
func feed(c *conn, input io.WriteCloser) error {
	defer input.Close()
	for {
		kind, body, err := c.read()
		if err != nil {
			return err
		}
		switch kind {
		case frameData:
			// A command that has ended takes no data. frameExit says how it ended.
			_, _ = input.Write(body)
		case frameClose:
			return nil
		default:
			return fmt.Errorf("%w: kind %q while a command runs", errFrame, kind)
		}
	}
}

// status is the exit status of a command that ended like this; nil if it has none.
func status(err error) *int {
	var exited *ssh.ExitError
	switch {
	case err == nil:
		return new(int)
	case errors.As(err, &exited) && exited.Signal() == "":
		number := exited.ExitStatus()
		return &number
	default:
		return nil
	}
}

// output sends what a command writes to standard output.
type output struct{ c *conn }

func (o output) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		part := rest[:min(len(rest), mostBytes)]
		if err := o.c.send(frameData, part); err != nil {
			return 0, err
		}
		rest = rest[len(part):]
	}
	return len(data), nil
}

// beginning keeps the first bytes of what is written to it.
type beginning struct {
	lock sync.Mutex
	kept []byte
}

func (b *beginning) Write(data []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.kept = append(b.kept, data[:min(len(data), mostSaid-len(b.kept))]...)
	return len(data), nil
}

func (b *beginning) text() string {
	b.lock.Lock()
	defer b.lock.Unlock()
	return string(b.kept)
}
