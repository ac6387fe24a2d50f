package main

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/openapi"
)

// served answers requests for the folders `paths`; see answersTo.
func served(t *testing.T, files map[string]string, paths ...string) ([]string, error) {
	t.Helper()
	var asked []request
	for _, path := range paths {
		asked = append(asked, request{Kustomize: &kustomization{Path: path}})
	}
	return answersTo(t, files, asked...)
}

// answersTo sends the requests to one process, one after the other, and gives it the files that it asks for. It returns
// the text of each answer, and how the process ended.
func answersTo(t *testing.T, files map[string]string, requests ...request) ([]string, error) {
	t.Helper()
	toWorker, ours := io.Pipe()
	theirs, fromWorker := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- serve(&conn{in: bufio.NewReader(toWorker), out: bufio.NewWriter(fromWorker)})
		fromWorker.Close()
		toWorker.Close()
	}()
	c := &conn{in: bufio.NewReader(theirs), out: bufio.NewWriter(ours)}
	var answers []string
	for _, one := range requests {
		asked, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.write(frameRender, asked); err != nil {
			break
		}
		answers = append(answers, answered(t, c, files))
	}
	ours.Close()
	return answers, <-ended
}

// answered sends the files that the renderer asks for, until it answers. The answer for a remote base or
// chart is the file whose name is the kind of the frame, a space, and the body of the frame.
func answered(t *testing.T, c *conn, files map[string]string) string {
	t.Helper()
	for {
		kind, body, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if kind == frameRemote || kind == frameChart {
			if err := c.write(frameFile, []byte(files[string(kind)+" "+string(body)])); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if kind != frameAsk {
			return string(body)
		}
		names := []string{}
		for path := range files {
			if rest, is := strings.CutPrefix("/"+path, strings.TrimSuffix("/"+string(body), "/")+"/"); is {
				name, _, _ := strings.Cut(rest, "/")
				names = append(names, name)
			}
		}
		if content, is := files[string(body)]; is {
			err = c.write(frameFile, []byte(content))
		} else if len(names) > 0 {
			err = c.writeJSON(frameDirectory, names)
		} else {
			err = c.write(frameAbsent, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	twoContainers = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: web, image: w}, {name: guard, image: g}]}}}\n"
	onePatch      = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: web, image: new}]}}}\n"
	plainPatch    = "resources: [d.yaml]\npatches: [{path: p.yaml}]\n"
)

// TestASchemaIsThatOfOneRender checks that a render is the same whatever the process rendered before.
func TestASchemaIsThatOfOneRender(t *testing.T) {
	empty := `{"swagger": "2.0", "info": {"title": "x", "version": "1"}, "paths": {}, "definitions": {}}`
	files := map[string]string{"plain/kustomization.yaml": plainPatch, "own/kustomization.yaml": plainPatch + "openapi: {path: s.json}\n",
		"base/kustomization.yaml": "resources: [../own]\n", "broken/kustomization.yaml": plainPatch + "openapi: {path: s.json}\n",
		"own/s.json": empty, "broken/s.json": "{"}
	for _, folder := range []string{"plain", "own", "broken"} {
		files[folder+"/d.yaml"], files[folder+"/p.yaml"] = twoContainers, onePatch
	}
	answers, err := served(t, files, "plain", "own", "plain", "base", "plain", "own")
	if err != nil || len(answers) != 6 {
		t.Fatalf("%v %q", err, answers)
	}
	if !strings.Contains(answers[0], "guard") || strings.Contains(answers[1], "guard") {
		t.Fatalf("the schema of own/ makes no difference: %q", answers)
	}
	if answers[2] != answers[0] || answers[4] != answers[0] {
		t.Errorf("what was rendered before makes a difference: %q", answers)
	}
	if openapi.GetSchemaVersion() != defaultSchema {
		t.Error("a schema stays in memory after its render")
	}
	answers, err = served(t, files, "plain", "broken", "plain")
	if len(answers) > 2 && answers[2] != answers[0] {
		t.Errorf("a broken schema makes a difference: %v %q", err, answers)
	}
}

// TestAnErrorQuotesNoValues checks that what is in a file does not get into an error.
func TestAnErrorQuotesNoValues(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {p: hunter2}\n"
	for name, kustomization := range map[string]string{
		"a literal":              "secretGenerator: [{name: a, literals: [hunter2]}]\n",
		"a line of a file":       "secretGenerator: [{name: a, envs: [e.env]}]\n",
		"a patch":                "resources: [s.yaml]\npatches:\n- patch: |\n    data: {p: hunter2}\n    kind: Secret\n",
		"a patch that is no":     "resources: [s.yaml]\ntransformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: x}\n  patch: '[hunter2'\n",
		"a replacement":          "resources: [s.yaml]\nreplacements:\n- source: {kind: Secret, fieldPath: data.p.q}\n  targets: [{select: {kind: Secret}, fieldPaths: [data.z]}]\n",
		"a name that has no end": "resources: ['" + strings.Repeat("x", 1<<20) + "']\n",
	} {
		files := map[string]string{"app/kustomization.yaml": kustomization, "app/s.yaml": secret, "app/e.env": "P=hunter2\xff\n"}
		answers, err := served(t, files, "app")
		if err != nil || !strings.Contains(answers[0], `"message"`) {
			t.Errorf("%s: %v %.200q", name, err, answers)
		} else if strings.Contains(answers[0], "hunter2") || strings.Contains(answers[0], "104 117 110") || len(answers[0]) > 4000 {
			t.Errorf("%s: %.500s", name, answers[0])
		}
	}
}

// TestOnlyFilesThatWereReadAreOrigins checks that no object is said to be from a file that a patch has made up.
func TestOnlyFilesThatWereReadAreOrigins(t *testing.T) {
	patch := "resources: [a.yaml]\npatches:\n- patch: |-\n    {apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: {config.kubernetes.io/origin: 'path: %s'}}}\n"
	for named, expected := range map[string]string{"a.yaml": "app/a.yaml", "gone.yaml": "", "../../etc/passwd": "", "../app": ""} {
		answers, err := served(t, map[string]string{
			"app/a.yaml":             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
			"app/kustomization.yaml": strings.Replace(patch, "%s", named, 1),
		}, "app")
		var made result
		if err != nil || len(answers) != 1 || json.Unmarshal([]byte(answers[0]), &made) != nil || len(made.Objects) != 1 {
			t.Fatalf("%v %q", err, answers)
		}
		if origin := made.Objects[0].Origin; origin != expected {
			t.Errorf("with %s in a patch, the object is said to be from '%s'", named, origin)
		}
	}
}
