// Command gitseal-renderer renders with the libraries of Kustomize: bytes in, bytes out. It is a worker of gitseal's, started
// by gitseal-controller and by `gitseal build`. It has no key, no network, no file system and no API: what it reads of a
// repository it asks for over its standard input and output (frames.go).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// request is what a render frame asks for: one of its fields is set.
type request struct {
	Kustomize *kustomization `json:"kustomize,omitempty"`
}

// result is what a render made.
type result struct {
	Objects []object `json:"objects"`
}

func main() {
	http.DefaultTransport = noNetwork{}
	if err := confine(); err != nil {
		fmt.Fprintf(os.Stderr, "gitseal-renderer: this process could not be confined: %v\n", err)
		os.Exit(1)
	}
	c := &conn{in: bufio.NewReader(os.Stdin), out: bufio.NewWriter(os.Stdout)}
	if err := serve(c); err != nil {
		fmt.Fprintf(os.Stderr, "gitseal-renderer: %v\n", err)
		os.Exit(1)
	}
}

// serve renders until its input ends.
func serve(c *conn) error {
	for {
		kind, body, err := c.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if kind != frameRender {
			return fmt.Errorf("%w: kind %q where a request was expected", errFrame, kind)
		}
		var asked request
		if err := json.Unmarshal(body, &asked); err != nil {
			return fmt.Errorf("%w: the request: %w", errFrame, err)
		}
		if err := answer(c, asked); err != nil {
			return err
		}
	}
}

func answer(c *conn, asked request) error {
	files := newRepository(c)
	objects, err := render(asked, files)
	if files.broken != nil {
		// The other side did not give what was asked for: what it sends next belongs to nothing.
		return files.broken
	}
	if err != nil {
		failed := &failure{Message: err.Error()}
		errors.As(err, &failed)
		return c.writeJSON(frameError, failed)
	}
	return c.writeJSON(frameResult, result{Objects: objects})
}

// render never panics: a library that does is told of as a failure.
func render(asked request, files *repository) (objects []object, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			objects, err = nil, &failure{Message: fmt.Sprintf("the library failed: %v", panicked)}
		}
	}()
	if asked.Kustomize == nil {
		return nil, &failure{Message: "the request names nothing that this renderer knows"}
	}
	return asked.Kustomize.build(files)
}
