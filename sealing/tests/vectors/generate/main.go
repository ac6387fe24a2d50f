// Command generate makes the test vectors of this folder: see README.md beside it.
//
// Usage: go run . <kubeseal binary> <output folder>
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bitnami-labs/sealed-secrets/pkg/crypto"
)

type vector struct {
	Key       string `json:"key"`
	Scope     string `json:"scope"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Plaintext []byte `json:"plaintext"`
	Value     string `json:"value"`
}

type base64Case struct {
	Text    string  `json:"text"`
	Decoded *string `json:"decoded"`
}

func main() {
	kubeseal, folder := os.Args[1], os.Args[2]
	writeKey(folder, "rsa-2048", 2048, "gitseal test key")
	writeKey(folder, "rsa-4096", 4096, "")

	var vectors []vector
	for _, key := range []string{"rsa-2048", "rsa-4096"} {
		for _, scope := range []string{"strict", "namespace-wide", "cluster-wide"} {
			for _, plaintext := range plaintexts(key, scope) {
				v := vector{Key: key, Scope: scope, Namespace: "team-a", Name: "database", Plaintext: plaintext}
				v.Value = seal(kubeseal, folder, v)
				vectors = append(vectors, v)
			}
		}
	}
	writeJSON(filepath.Join(folder, "values.json"), vectors)
	writeJSON(filepath.Join(folder, "base64.json"), base64Cases())
}

func writeKey(folder, name string, bits int, commonName string) {
	key, certificate, err := crypto.GeneratePrivateKeyAndCert(bits, 10*365*24*time.Hour, commonName)
	check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	writePEM(folder, name+".crt", "CERTIFICATE", certificate.Raw)
	writePEM(folder, name+".key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	writePEM(folder, name+".pkcs8.key", "PRIVATE KEY", pkcs8)
	fmt.Printf("%s: notBefore %d, notAfter %d\n", name, certificate.NotBefore.Unix(), certificate.NotAfter.Unix())
}

func plaintexts(key, scope string) [][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	values := [][]byte{{}, []byte("correct horse battery staple"), []byte("line one\nline two\n\xc3\xa9"), all}
	if key == "rsa-4096" && scope == "strict" {
		values = append(values, bytes.Repeat(all, 256))
	}
	return values
}

func seal(kubeseal, folder string, v vector) string {
	file, err := os.CreateTemp("", "plaintext")
	check(err)
	defer os.Remove(file.Name())
	_, err = file.Write(v.Plaintext)
	check(err)
	check(file.Close())
	command := exec.Command(kubeseal, "--raw", "--cert", filepath.Join(folder, v.Key+".crt"), "--scope", v.Scope,
		"--namespace", v.Namespace, "--name", v.Name, "--from-file", file.Name())
	command.Stderr = os.Stderr
	out, err := command.Output()
	check(err)
	return strings.TrimSpace(string(out))
}

func base64Cases() []base64Case {
	texts := []string{
		"", "QQ==", "QUI=", "QUJD", "QQ", "QQ=", "QUI", "QR==", "QUJ=", "QQ==\n", "\nQQ==", "Q\nQ=\r\n=\n", "Q\rQ==", "QQ = =",
		" QQ==", "QQ== ", "QQ==\t", "QQ==QQ==", "QQ==A", "=QQ=", "====", "=", "Q===", "A", "QUJDRA==", "QUJD\nRA==", "QU\r\n\r\nJD",
		"-_-_", "+/+/", "QQ\x00==", "\n\r\n", "Q=Q=", "QUJDRR==", "QUI=\nQUJD", "\u00e9\u00e9", "QQ==\x0b",
	}
	var cases []base64Case
	for _, text := range texts {
		c := base64Case{Text: text}
		if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
			hex := fmt.Sprintf("%x", decoded)
			c.Decoded = &hex
		}
		cases = append(cases, c)
	}
	return cases
}

func writePEM(folder, name, label string, der []byte) {
	block := pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
	check(os.WriteFile(filepath.Join(folder, name), block, 0o644))
}

func writeJSON(path string, value any) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	check(encoder.Encode(value))
	check(os.WriteFile(path, text.Bytes(), 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
