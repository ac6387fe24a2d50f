// Command gitseal-renderer renders with the libraries of Kustomize: bytes in, bytes out. gitseal-controller and `gitseal
// build` start it as a worker process. It has no keys, and no access to the network, the file system or the API server. It
// requests the files of a repository over its standard input and output (frames.go).
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

// request is the body of a render frame. Exactly one of its fields is set.
type request struct {
	Kustomize *kustomization `json:"kustomize,omitempty"`
}

// result holds the objects of a render.
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

// serve answers requests until its input ends.
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
		// The other side did not send the requested file. After that, its next bytes cannot be assigned to any request.
		return files.broken
	}
	if err != nil {
		failed := &failure{Message: err.Error()}
		errors.As(err, &failed)
		return c.writeJSON(frameError, failed)
	}
	return c.writeJSON(frameResult, result{Objects: objects})
}

// render does not panic. If the library panics, render returns that as a failure.
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
