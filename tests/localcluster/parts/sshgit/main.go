// Command sshgit serves Git over SSH, with the real `git upload-pack`.
//
//	sshgit CONFIGURATION_FILE
//
// It writes a line to standard output for each connection, login and command, so that a test can count them.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// configuration is the content of the file.
type configuration struct {
	Address string `json:"address"`
	// HostKeys are files with private keys. The certificate of a key is in the file with `-cert.pub` at the end of its name.
	HostKeys []string `json:"hostKeys"`
	// Authorized is a file that is read at each login. A line has a public key, and the name of the repository that the key may
	// read; `-` if it may read none.
	Authorized string `json:"authorized"`
	// Root is the folder with the bare repositories.
	Root string `json:"root"`
	// Ignores is true if the server ignores all variables, as OpenSSH does by default.
	Ignores bool `json:"ignores"`
	// Rekeys is true if the keys of the connection are renewed after each 64 KiB.
	Rekeys bool `json:"rekeys"`
	// Trouble is what the server does instead of serving, or is empty.
	Trouble string `json:"trouble"`
}

// The kinds of trouble.
const (
	// hangs: the server does not answer at this step.
	hangsAtLogin   = "hangs at login"
	hangsAtChannel = "hangs at channel"
	hangsAtCommand = "hangs at command"
	hangsAtData    = "hangs at data"
	// endless: the server sends without end.
	endlessBanner     = "endless banner"
	endlessErrors     = "endless errors"
	endlessReferences = "endless references"
)

// forever never ends.
func forever() { select {} }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sshgit:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: sshgit CONFIGURATION_FILE")
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	s := new(server)
	if err := json.Unmarshal(text, &s.configuration); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.Address)
	if err != nil {
		return err
	}
	for {
		accepted, err := listener.Accept()
		if err != nil {
			return err
		}
		go s.serve(accepted)
	}
}

type server struct {
	configuration
	ssh ssh.ServerConfig
}

// mayRead is the name of the extension that has the repository which a key may read.
const mayRead = "may-read"

func (s *server) prepare() error {
	s.ssh.PublicKeyCallback = func(who ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if s.Trouble == hangsAtLogin {
			forever()
		}
		repository, err := s.authorized(key)
		if err != nil {
			fmt.Println("refused", who.User(), ssh.FingerprintSHA256(key))
			return nil, err
		}
		return &ssh.Permissions{Extensions: map[string]string{mayRead: repository}}, nil
	}
	if s.Trouble == endlessBanner {
		s.ssh.PreAuthConnCallback = func(client ssh.ServerPreAuthConn) {
			for client.SendAuthBanner(strings.Repeat("welcome ", 1000)) == nil {
			}
		}
	}
	if s.Rekeys {
		s.ssh.RekeyThreshold = 64 << 10
	}
	for _, file := range s.HostKeys {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		signer, err := ssh.ParsePrivateKey(pem)
		if err != nil {
			return err
		}
		if line, err := os.ReadFile(file + "-cert.pub"); err == nil {
			key, _, _, _, err := ssh.ParseAuthorizedKey(line)
			if err != nil {
				return err
			}
			if signer, err = ssh.NewCertSigner(key.(*ssh.Certificate), signer); err != nil {
				return err
			}
		}
		s.ssh.AddHostKey(signer)
	}
	return nil
}

// authorized returns the repository that a key may read.
func (s *server) authorized(key ssh.PublicKey) (string, error) {
	file, err := os.Open(s.Authorized)
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		known, repository, _, _, err := ssh.ParseAuthorizedKey(lines.Bytes())
		if err == nil && string(known.Marshal()) == string(key.Marshal()) {
			return repository, nil
		}
	}
	return "", errors.New("this key may not log in")
}

func (s *server) serve(accepted net.Conn) {
	fmt.Println("connected")
	defer fmt.Println("closed")
	defer accepted.Close()
	client, channels, requests, err := ssh.NewServerConn(accepted, &s.ssh)
	if err != nil {
		return
	}
	fmt.Println("login", client.User())
	go ssh.DiscardRequests(requests)
	for asked := range channels {
		if s.Trouble == hangsAtChannel {
			continue
		}
		channel, requests, err := asked.Accept()
		if err != nil {
			return
		}
		go s.session(channel, requests, client.Permissions.Extensions[mayRead])
	}
}

func (s *server) session(channel ssh.Channel, requests <-chan *ssh.Request, repository string) {
	protocol := ""
	for asked := range requests {
		switch asked.Type {
		case "env":
			var pair struct{ Name, Value string }
			if ssh.Unmarshal(asked.Payload, &pair) == nil && pair.Name == "GIT_PROTOCOL" && !s.Ignores {
				protocol = pair.Value
			}
		case "exec":
			var command struct{ Text string }
			_ = ssh.Unmarshal(asked.Payload, &command)
			if s.Trouble == hangsAtCommand {
				forever()
			}
			_ = asked.Reply(true, nil)
			go func() {
				status := s.command(channel, command.Text, protocol, repository)
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
				channel.Close()
			}()
		default:
			_ = asked.Reply(false, nil)
		}
	}
}

// command runs a command as the shell of a forge does.
func (s *server) command(channel ssh.Channel, text, protocol, repository string) uint32 {
	fmt.Println("run", text)
	switch s.Trouble {
	case hangsAtData:
		forever()
	case endlessErrors:
		for {
			if _, err := io.WriteString(channel.Stderr(), strings.Repeat("wrong ", 1000)); err != nil {
				return 1
			}
		}
	case endlessReferences:
		for number := 0; ; number++ {
			reference := fmt.Sprintf("%040x refs/heads/%0200d", 1+number, number)
			if number == 0 {
				reference += "\x00shallow"
			}
			reference += "\n"
			if _, err := fmt.Fprintf(channel, "%04x%s", len(reference)+4, reference); err != nil {
				return 1
			}
		}
	}
	words, isGit := strings.CutPrefix(text, "git-upload-pack ")
	if !isGit {
		fmt.Fprintln(channel.Stderr(), "this account runs git-upload-pack only")
		return 128
	}
	// The shell decides what is a word, as on a real server.
	word, err := exec.Command("sh", "-c", `printf '%s\n' `+words).Output()
	if err != nil {
		return 128
	}
	path := strings.TrimSuffix(string(word), "\n")
	fmt.Println("path", path)
	name := strings.TrimSuffix(strings.TrimPrefix(path, "/"), ".git")
	if name != repository || strings.Contains(name, "..") {
		fmt.Fprintln(channel.Stderr(), "ERROR: Repository not found.")
		return 1
	}
	git := exec.Command("git", "upload-pack", filepath.Join(s.Root, name+".git"))
	git.Env = append(os.Environ(), "GIT_PROTOCOL="+protocol)
	git.Stdout, git.Stderr = channel, channel.Stderr()
	input, err := git.StdinPipe()
	if err != nil {
		return 128
	}
	if err := git.Start(); err != nil {
		return 128
	}
	go func() {
		_, _ = io.Copy(input, channel)
		input.Close()
	}()
	err = git.Wait()
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		return uint32(exited.ExitCode())
	}
	return 0
}
