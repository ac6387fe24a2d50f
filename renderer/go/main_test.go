package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The values of the environment variable that makes TestMain run as a confined process.
const (
	confined = "GITSEAL_TEST_CONFINED"
	wholly   = "wholly"
	// withoutFilter leaves out the filter of system calls, which hides what Landlock does.
	withoutFilter = "without filter"
)

// TestMain also runs as the confined processes that the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv(confined) {
	case wholly:
		os.Stdout.WriteString(confinedReport())
	case withoutFilter:
		filterSystemCalls = func() error { return nil }
		os.Stdout.WriteString(landlockReport())
	default:
		os.Exit(m.Run())
	}
	os.Exit(0)
}

// becomeConfined confines this process as main does, with these arguments.
func becomeConfined(arguments ...string) error {
	flag.CommandLine = flag.NewFlagSet("worker", flag.ExitOnError)
	os.Args = append(os.Args[:1:1], arguments...)
	return confine()
}

// limitsReport lists the resources whose limits are not those that confine sets.
func limitsReport() (wrong []string) {
	for name, limit := range map[string]struct {
		resource int
		most     uint64
	}{
		"memory": {unix.RLIMIT_DATA, 1 << 30}, "processor time": {unix.RLIMIT_CPU, 100}, "open files": {unix.RLIMIT_NOFILE, 16},
		"sizes of files": {unix.RLIMIT_FSIZE, 0}, "crash dumps": {unix.RLIMIT_CORE, 0},
	} {
		var is unix.Rlimit
		if err := unix.Getrlimit(limit.resource, &is); err != nil || is.Cur != limit.most || is.Max != limit.most {
			wrong = append(wrong, fmt.Sprintf("use %d of %s", is.Max, name))
		}
	}
	return wrong
}

// landlockReport lists forbidden things that a process could still do if it were confined without the filter of system calls.
func landlockReport() string {
	if err := becomeConfined("-memory=1073741824", "-processor-seconds=100"); err != nil {
		return "not confined: " + err.Error()
	}
	could := limitsReport()
	for _, name := range []string{"/etc/passwd", "/proc/self/environ", "/tmp"} {
		if _, err := os.Open(name); !errors.Is(err, os.ErrPermission) {
			could = append(could, fmt.Sprintf("open %s (%v)", name, err))
		}
	}
	if _, err := net.Dial("tcp", "127.0.0.1:1"); !errors.Is(err, os.ErrPermission) {
		could = append(could, fmt.Sprintf("connect (%v)", err))
	}
	return strings.Join(could, ", ")
}

// confinedReport lists forbidden things that a confined process could still do. It is empty if the process is confined
// correctly.
func confinedReport() string {
	if err := becomeConfined(); err != nil {
		return "not confined: " + err.Error()
	}
	var could []string
	for _, name := range []string{"/etc/passwd", "/proc/self/environ", "/tmp"} {
		if _, err := os.Open(name); err == nil {
			could = append(could, "open "+name)
		}
	}
	if err := os.WriteFile("/tmp/gitseal-renderer-test", nil, 0o600); err == nil {
		could = append(could, "write a file")
	}
	if _, err := net.Dial("tcp", "127.0.0.1:1"); err == nil || strings.Contains(err.Error(), "refused") {
		could = append(could, "reach the network")
	}
	if _, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		could = append(could, "listen")
	}
	if err := exec.Command("/bin/true").Run(); err == nil {
		could = append(could, "start a program")
	}
	if files, err := net.Dial("unix", "/run/anything"); err == nil || errors.Is(err, os.ErrNotExist) {
		_ = files
		could = append(could, "make a socket")
	}
	return strings.Join(could, ", ")
}

func reported(t *testing.T, how string) {
	command := exec.Command(os.Args[0])
	command.Env = []string{confined + "=" + how}
	report, err := command.Output()
	if err != nil || len(report) > 0 {
		t.Fatalf("%v; it can %s", err, report)
	}
}

func TestConfined(t *testing.T) { reported(t, wholly) }

// TestConfinedByLandlockAndLimits checks the measures that the filter of system calls hides: with the filter, the kernel refuses to
// open a file before it asks Landlock.
func TestConfinedByLandlockAndLimits(t *testing.T) {
	// The fourth version can also refuse connections.
	if version, err := llsys.LandlockGetABIVersion(); err != nil || version < 4 {
		t.Skipf("this kernel has version %d of Landlock (%v), and the test needs the fourth one", version, err)
	}
	reported(t, withoutFilter)
}

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
