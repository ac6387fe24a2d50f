package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A frame is four bytes of length (big endian, of what follows), one byte that says what the frame is, and its body.
const (
	// From the program that wants something rendered.
	frameRender    = 'R' // JSON, a request
	frameDirectory = 'D' // JSON, an array of names, sorted; what was asked for is a directory
	frameFile      = 'F' // bytes; what was asked for is a file
	frameAbsent    = 'A' // nothing; what was asked for is not there

	// From this worker.
	frameAsk    = 'Q' // UTF-8, a path of the repository
	frameResult = 'M' // JSON, a result
	frameError  = 'E' // JSON, a failure
)

// The longest frame that is read, in bytes.
const longestFrame = 64 << 20

// errFrame is a frame that cannot be one. There is no way to go on after it.
var errFrame = errors.New("the frame is not understood")

// conn is the two pipes to the program that wants something rendered.
type conn struct {
	in  *bufio.Reader
	out *bufio.Writer
}

// read reads the next frame. The error is io.EOF if the pipe ended between two frames.
func (c *conn) read() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:4]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length == 0 || length > longestFrame {
		return 0, nil, fmt.Errorf("%w: its length is %d bytes", errFrame, length)
	}
	if _, err := io.ReadFull(c.in, head[4:]); err != nil {
		return 0, nil, unexpected(err)
	}
	body = make([]byte, length-1)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return 0, nil, unexpected(err)
	}
	return head[4], body, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write sends a frame at once.
func (c *conn) write(kind byte, body []byte) error {
	if len(body) >= longestFrame {
		return fmt.Errorf("%w: its body has %d bytes", errFrame, len(body))
	}
	var head [5]byte
	binary.BigEndian.PutUint32(head[:4], uint32(len(body)+1))
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
	return c.write(kind, body)
}
