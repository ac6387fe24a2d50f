package main

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

func connOf(input []byte) (*conn, *bytes.Buffer) {
	var output bytes.Buffer
	return &conn{in: bufio.NewReader(bytes.NewReader(input)), out: bufio.NewWriter(&output)}, &output
}

func frames(t testing.TB, all ...func(*conn) error) []byte {
	var buffer bytes.Buffer
	c := &conn{out: bufio.NewWriter(&buffer)}
	for _, write := range all {
		if err := write(c); err != nil {
			t.Fatal(err)
		}
	}
	return buffer.Bytes()
}

func frame(kind byte, body string) func(*conn) error {
	return func(c *conn) error { return c.write(kind, []byte(body)) }
}

func TestFramesAreRead(t *testing.T) {
	c, _ := connOf(frames(t, frame(frameFile, "abc"), frame(frameAbsent, "")))
	for _, expected := range []struct {
		kind byte
		body string
	}{{frameFile, "abc"}, {frameAbsent, ""}} {
		kind, body, err := c.read()
		if err != nil || kind != expected.kind || string(body) != expected.body {
			t.Fatalf("%q %q %v", kind, body, err)
		}
	}
	if _, _, err := c.read(); err != io.EOF {
		t.Fatalf("%v at the end", err)
	}
	for _, wrong := range []string{"\x00\x00\x00\x00", "\xff\xff\xff\xffF", "\x00\x00\x00\x05Fab", "\x00\x00"} {
		c, _ := connOf([]byte(wrong))
		if _, _, err := c.read(); err == nil || err == io.EOF {
			t.Errorf("%q is read: %v", wrong, err)
		}
	}
}

func TestWhatIsNotUnderstoodEndsTheProcess(t *testing.T) {
	for _, input := range [][]byte{
		frames(t, frame(frameFile, "abc")),
		frames(t, frame(frameRender, "{")),
		frames(t, frame(frameRender, `{"kustomize":{"path":"a"}}`), frame('z', "")),
		frames(t, frame(frameRender, `{"kustomize":{"path":"a"}}`), frame(frameDirectory, `["../up"]`)),
		frames(t, frame(frameRender, `{"kustomize":{"path":"a"}}`)),
	} {
		c, _ := connOf(input)
		if err := serve(c); err == nil {
			t.Errorf("%q is served", input)
		}
	}
}

func TestAnUnknownRequestIsAFailure(t *testing.T) {
	c, output := connOf(frames(t, frame(frameRender, "{}")))
	if err := serve(c); err != nil || !strings.Contains(output.String(), "nothing that this renderer knows") {
		t.Fatalf("%v %q", err, output)
	}
}

// FuzzServe checks that the process answers any input, or ends with an error, and never panics.
func FuzzServe(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03R{}"))
	f.Add(frames(f, frame(frameRender, `{"kustomize":{"path":"a"}}`), frame(frameDirectory, `["kustomization.yaml"]`),
		frame(frameFile, "namePrefix: a-\nresources: [b.yaml]\n"), frame(frameAbsent, ""), frame(frameAbsent, "")))
	f.Add(frames(f, frame(frameRender, `{"helm":{"path":"a","releaseName":"a","values":[{"set":"b=c"}]}}`),
		frame(frameDirectory, `["Chart.yaml","templates"]`), frame(frameAbsent, ""),
		frame(frameFile, "apiVersion: v2\nname: a\nversion: 1.0.0\n"), frame(frameDirectory, `["a.yaml"]`),
		frame(frameFile, "kind: ConfigMap\na: {{ .Values.b }}\n")))
	f.Fuzz(func(t *testing.T, input []byte) {
		c, _ := connOf(input)
		_ = serve(c)
	})
}
