package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const remoteRoot = "https://git.example/team/app@v1"

// remoteFiles has a kustomization with a remote base, whose files are in remoteRoot.
func remoteFiles(kustomization, base string) map[string]string {
	return map[string]string{
		"app/kustomization.yaml":                    kustomization,
		"private.txt":                               "of the tenant",
		remoteRoot + "//deploy/kustomization.yaml":  base,
		remoteRoot + "//deploy/map.yaml":            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\n",
		remoteRoot + "//shared/kustomization.yaml":  "resources: [other.yaml]\n",
		remoteRoot + "//shared/other.yaml":          "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n",
		"U https://git.example/team/app//deploy":    `{"root": "` + remoteRoot + `", "folder": "deploy", "url": "https://git.example/team/app", "ref": "v1"}`,
		"U git::https://git.example/team/app":       `{"refusal": "'git::…' is refused"}`,
		"U https://git.example/team/app?ref=shared": `{"root": "` + remoteRoot + `", "folder": "shared", "url": "https://git.example/team/app", "ref": "v1"}`,
	}
}

func rendered(t *testing.T, kustomization, base string) string {
	t.Helper()
	answers, err := served(t, remoteFiles(kustomization, base), "app")
	if err != nil || len(answers) != 1 {
		t.Fatalf("%v, %v", answers, err)
	}
	if strings.Contains(answers[0], ".gitseal-") {
		t.Errorf("the name of a folder that nobody may guess is shown: %s", answers[0])
	}
	return answers[0]
}

const ofDeploy = "resources: ['https://git.example/team/app//deploy']\n"

func TestARemoteBaseIsRenderedLikeAFolder(t *testing.T) {
	answer := rendered(t, "namePrefix: a-\n"+ofDeploy, "resources: [map.yaml, ../shared]\n")
	var made result
	if err := json.Unmarshal([]byte(answer), &made); err != nil || len(made.Objects) != 2 {
		t.Fatalf("%s: %v", answer, err)
	}
	origins := []string{made.Objects[0].Origin, made.Objects[1].Origin}
	if origins[0] != remoteRoot+"//deploy/map.yaml" || origins[1] != remoteRoot+"//shared/other.yaml" {
		t.Errorf("%v", origins)
	}
	if !strings.Contains(made.Objects[0].YAML, "name: a-map") || strings.Contains(answer, "config.kubernetes.io/origin") {
		t.Error(answer)
	}
}

func TestTheSameRemoteBaseGivesTheSameObjectsEachTime(t *testing.T) {
	kustomization := "buildMetadata: [originAnnotations, transformerAnnotations]\nnamePrefix: a-\n" + ofDeploy
	base := "resources: [map.yaml]\nnameSuffix: -b\nconfigMapGenerator: [{name: made, literals: [a=b]}]\n"
	first, second := rendered(t, kustomization, base), rendered(t, kustomization, base)
	if first != second {
		t.Errorf("%s\n%s", first, second)
	}
	for _, text := range []string{"repo: https://git.example/team/app", "ref: v1", "path: deploy/map.yaml", "configuredIn: deploy/kustomization.yaml"} {
		if !strings.Contains(first, text) {
			t.Errorf("no %q in %s", text, first)
		}
	}
}

func TestARemoteBaseReadsNoFilesOfOtherRepositories(t *testing.T) {
	up := strings.Repeat("../", 20)
	for _, base := range []string{
		"configMapGenerator: [{name: a, files: [" + up + "private.txt]}]\n",
		"configMapGenerator: [{name: a, files: [" + up + "app/kustomization.yaml]}]\n",
		"resources: [" + up + "app]\n",
		"resources: [map.yaml]\npatches: [{path: " + up + "private.txt}]\n",
		"resources: [map.yaml]\ncomponents: [" + up + "app]\n",
		"generators: [made.yaml]\n",
	} {
		if answer := rendered(t, ofDeploy, base); strings.Contains(answer, "of the tenant") || strings.Contains(answer, `"objects"`) {
			t.Errorf("%s: %s", base, answer)
		}
	}
}

func TestWhyARemoteBaseCannotBeUsedIsSaidWithItsLine(t *testing.T) {
	answer := rendered(t, "namePrefix: a-\nresources:\n- 'git::https://git.example/team/app'\n", "")
	if !strings.Contains(answer, "app/kustomization.yaml:3: 'git::…' is refused") {
		t.Error(answer)
	}
	answer = rendered(t, ofDeploy, "resources: ['git::https://git.example/team/app']\n")
	if !strings.Contains(answer, remoteRoot+"//deploy/kustomization.yaml:1: ") {
		t.Error(answer)
	}
	answer = rendered(t, ofDeploy, "resources: [missing.yaml]\n")
	if !strings.Contains(answer, remoteRoot+"//deploy/missing.yaml") {
		t.Error(answer)
	}
}

func TestARemoteBaseMayNameItsOwnRepositoryAndALoopIsFound(t *testing.T) {
	answer := rendered(t, ofDeploy, "resources: ['https://git.example/team/app?ref=shared']\n")
	if !strings.Contains(answer, "name: other") {
		t.Error(answer)
	}
	answer = rendered(t, ofDeploy, "resources: ['https://git.example/team/app//deploy']\n")
	if !strings.Contains(answer, "refer to each other") {
		t.Error(answer)
	}
}

func TestAFileWithTheNameOfAURLIsAFile(t *testing.T) {
	files := remoteFiles("resources: [github.com/team/map.yaml]\n", "")
	files["app/github.com/team/map.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: local}\n"
	answers, err := served(t, files, "app")
	if err != nil || !strings.Contains(answers[0], "name: local") {
		t.Fatalf("%v, %v", answers, err)
	}
}
