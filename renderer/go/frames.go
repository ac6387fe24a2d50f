package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A frame is the length of the rest in four bytes (big endian), one byte with the kind of the frame, and its body.
const (
	// From the program that started this worker.
	frameRender    = 'R' // JSON: a request to render
	frameDirectory = 'D' // JSON: the sorted names in the directory at the requested path
	frameFile      = 'F' // the bytes of the file at the requested path; JSON: the requested remote base or chart
	frameAbsent    = 'A' // empty: there is nothing at the requested path

	// From this worker.
	frameAsk    = 'Q' // UTF-8: the path of a file or directory that the worker wants to read
	frameRemote = 'U' // UTF-8: the URL of a remote base in a kustomization
	frameChart  = 'C' // JSON: a chart of a chart repository or registry
	frameResult = 'M' // JSON: a result
	frameError  = 'E' // JSON: a failure
)

// The longest frame that is read, in bytes.
const longestFrame = 192 << 20

// errFrame means that the bytes are not a valid frame. Nothing can be read after it.
var errFrame = errors.New("the frame is not understood")

// conn is the pair of pipes to the program that started this worker.
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

// write sends a frame and flushes it.
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
