// Command gitseal-renderer renders with the libraries of Kustomize and Helm: bytes in, bytes out. gitseal-controller and
// `gitseal build` start it as a worker process. It has no keys, and no access to the network, the file system or the API
// server. It requests the files of a repository over its standard input and output (frames.go).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime/debug"

	// Templates can format a time in a named time zone. This process has no access to the system's files, so it brings the
	// zones itself.
	_ "time/tzdata"

	"gitseal.dev/confine"
)

// mostStack is the number of bytes of stack that a render may use. It is large because Helm allows a template to include
// itself a thousand times.
const mostStack = 128 << 20

// garbagePercent is how much a render may allocate, in percent of the memory in use, before Go collects garbage. A render
// allocates much and keeps little: with Go's default of 100, a fifth of the processor time of small renders is garbage
// collection. The limit of memory counts as well: see confine.Process.
const garbagePercent = 200

// request is the body of a render frame. Exactly one of its fields is set.
type request struct {
	Kustomize *kustomization `json:"kustomize,omitempty"`
	Helm      *helmChart     `json:"helm,omitempty"`
}

// result holds the objects of a render. The other fields are set only for charts.
type result struct {
	// Objects is not nil, so that it is an array in JSON.
	Objects []object `json:"objects"`
	// Notes is the text of the chart's NOTES.txt.
	Notes string `json:"notes,omitempty"`
	// Lookups lists what templates tried to read from the cluster, and got no answer to. Each lookup returned nothing.
	Lookups []lookup `json:"lookups,omitempty"`
	// Nondeterministic lists the called functions that return a different value at each call, sorted.
	Nondeterministic []string `json:"nondeterministic,omitempty"`
	// Warnings lists Helm's warnings.
	Warnings []string `json:"warnings,omitempty"`
}

// object is one rendered object, and the file that it comes from.
type object struct {
	// Origin is the file of the repository that contains the object or its generator; empty if that is not known.
	Origin string `json:"origin,omitempty"`
	// Generated is true if a generator made the object, so that no file contains it.
	Generated bool `json:"generated,omitempty"`
	// Index is set if the object comes from the list of objects in the request: it is the position in this list.
	Index *int `json:"index,omitempty"`
	// YAML is the object as one YAML document.
	YAML string `json:"yaml"`
	// Source is Helm's name of the template.
	Source string `json:"source,omitempty"`
	// CRD is true if the object comes from the crds/ folder of a chart.
	CRD bool `json:"crd,omitempty"`
	// Hook is set if the object is a hook.
	Hook *hook `json:"hook,omitempty"`
}

// failure says why there is no result.
type failure struct {
	// Message says what is wrong, and if possible where, as `file:line`.
	Message string `json:"message"`
	// NotReproducible is true if a template looks up what it may not look up.
	NotReproducible bool `json:"notReproducible,omitempty"`
}

func (f *failure) Error() string { return f.Message }

func failed(format string, values ...any) *failure {
	return &failure{Message: fmt.Sprintf(format, values...)}
}

func main() {
	complain := os.Stderr
	http.DefaultTransport = noNetwork{}
	debug.SetMaxStack(mostStack)
	debug.SetGCPercent(garbagePercent)
	if err := confine.Process(limits()); err != nil {
		fmt.Fprintf(complain, "gitseal-renderer: this process could not be confined: %v\n", err)
		os.Exit(1)
	}
	// Libraries would write warnings about the content of files to standard error. The parent process would take this text
	// for the reason why this process ended, perhaps during the render of another tenant. Go's runtime still writes to
	// standard error.
	os.Stderr = nil
	log.SetOutput(io.Discard)
	c := &conn{in: bufio.NewReader(os.Stdin), out: bufio.NewWriter(os.Stdout)}
	if err := serve(c); err != nil {
		fmt.Fprintf(complain, "gitseal-renderer: %v\n", err)
		os.Exit(1)
	}
}

// limits reads from the arguments how much this process may use.
func limits() confine.Limits {
	memory := flag.Uint64("memory", 0, "bytes of memory that this process may have; 0 is no limit")
	seconds := flag.Uint64("processor-seconds", 0, "seconds of processor time that this process may use; 0 is no limit")
	flag.Parse()
	return confine.Limits{Memory: *memory, ProcessorSeconds: *seconds}
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

// errPanicked means that Kustomize or Helm panicked. What the panic left in memory must not be used for another render.
var errPanicked = errors.New("Kustomize or Helm panicked during a render, so this process ends")

func answer(c *conn, asked request) error {
	files := newRepository(c)
	made, panicked, err := render(asked, files)
	if files.broken != nil {
		// The other side did not send the requested file. After that, its next bytes cannot be assigned to any request.
		return files.broken
	}
	if err != nil {
		failed := &failure{Message: err.Error()}
		errors.As(err, &failed)
		failed.Message = shortened(failed.Message)
		if err := c.writeJSON(frameError, failed); err != nil {
			return err
		}
		if panicked {
			return errPanicked
		}
		return nil
	}
	if made.Objects == nil {
		made.Objects = []object{}
	}
	return c.writeJSON(frameResult, made)
}

// render does not panic. If the library panics, render returns that as a failure.
func render(asked request, files *repository) (made result, panicked bool, err error) {
	defer func() {
		if why := recover(); why != nil {
			made, panicked, err = result{}, true, failed("the library failed: %s", withoutValues(fmt.Sprint(why)))
		}
	}()
	switch {
	case asked.Kustomize != nil:
		made.Objects, err = asked.Kustomize.build(files)
	case asked.Helm != nil:
		made, err = asked.Helm.build(files)
	default:
		err = failed("the request asks for nothing that this renderer knows")
	}
	return made, false, err
}
