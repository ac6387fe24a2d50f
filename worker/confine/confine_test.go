package confine

import (
	"errors"
	"fmt"
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

// limitsReport lists the resources whose limits are not those that Process sets.
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
	if err := Process(Limits{Memory: 1 << 30, ProcessorSeconds: 100}); err != nil {
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
	if err := Process(Limits{}); err != nil {
		return "not confined: " + err.Error()
	}
	var could []string
	for _, name := range []string{"/etc/passwd", "/proc/self/environ", "/tmp"} {
		if _, err := os.Open(name); err == nil {
			could = append(could, "open "+name)
		}
	}
	if err := os.WriteFile("/tmp/gitseal-confine-test", nil, 0o600); err == nil {
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
