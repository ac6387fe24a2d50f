package main

import (
	"encoding/json"
	"strings"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"
)

const cacheRoot = "https://charts.example/stable#cache@1.2.3"

// shopFiles has the chart shop, which depends on the chart cache. The digest in its Chart.lock is right if `digest` is empty.
func shopFiles(t *testing.T, digest string) map[string]string {
	t.Helper()
	wanted := &chart.Dependency{Name: "cache", Version: "1.x", Repository: "https://charts.example/stable"}
	locked := &chart.Dependency{Name: "cache", Version: "1.2.3", Repository: "https://charts.example/stable"}
	if digest == "" {
		var err error
		if digest, err = lockDigest([]*chart.Dependency{wanted}, []*chart.Dependency{locked}); err != nil {
			t.Fatal(err)
		}
	}
	dependency := func(version string) string {
		return "dependencies:\n- {name: cache, version: " + version + ", repository: 'https://charts.example/stable'}\n"
	}
	return map[string]string{
		"shop/Chart.yaml":                  "apiVersion: v2\nname: shop\nversion: 1.0.0\n" + dependency("1.x"),
		"shop/Chart.lock":                  dependency("1.2.3") + "digest: " + digest + "\ngenerated: '2026-01-01T00:00:00Z'\n",
		cacheRoot + "//Chart.yaml":         "apiVersion: v2\nname: cache\nversion: 1.2.3\n",
		cacheRoot + "//templates/map.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\n",
		`C {"repository":"https://charts.example/stable","name":"cache","version":"1.2.3"}`: `{"root": "` + cacheRoot + `", "folder": "", "url": "", "ref": ""}`,
	}
}

func ofShop(t *testing.T, files map[string]string) string {
	t.Helper()
	answers, err := answersTo(t, files, request{Helm: &helmChart{Path: "shop", ReleaseName: "shop", Namespace: "shop"}})
	if err != nil || len(answers) != 1 || strings.Contains(answers[0], ".gitseal-") {
		t.Fatalf("%v, %v", answers, err)
	}
	return answers[0]
}

func TestALockedChartIsRendered(t *testing.T) {
	answer := ofShop(t, shopFiles(t, ""))
	var made result
	if err := json.Unmarshal([]byte(answer), &made); err != nil || len(made.Objects) != 1 {
		t.Fatalf("%s: %v", answer, err)
	}
	if one := made.Objects[0]; one.Origin != cacheRoot+"//templates/map.yaml" || one.Source != "shop/charts/cache/templates/map.yaml" {
		t.Errorf("%+v", one)
	}
}

func TestALockThatDoesNotFitIsRefused(t *testing.T) {
	answer := ofShop(t, shopFiles(t, "sha256:0"))
	if !strings.Contains(answer, "shop/Chart.yaml: Chart.lock does not belong to these dependencies") {
		t.Error(answer)
	}
	files := shopFiles(t, "")
	delete(files, "shop/Chart.lock")
	if answer := ofShop(t, files); !strings.Contains(answer, "there is no Chart.lock") {
		t.Error(answer)
	}
}

func TestAnotherChartThanTheLockedOneIsRefused(t *testing.T) {
	files := shopFiles(t, "")
	files[cacheRoot+"//Chart.yaml"] = "apiVersion: v2\nname: cache\nversion: 1.2.4\n"
	if answer := ofShop(t, files); !strings.Contains(answer, "the archive has the chart 'cache' 1.2.4") {
		t.Error(answer)
	}
	files[cacheRoot+"//Chart.yaml"] = "name: ["
	if answer := ofShop(t, files); !strings.Contains(answer, cacheRoot+"//Chart.yaml") {
		t.Error(answer)
	}
	for name := range files {
		if strings.HasPrefix(name, "C ") {
			files[name] = `{"refusal": "it is not allowed"}`
		}
	}
	if answer := ofShop(t, files); !strings.Contains(answer, "shop/Chart.yaml: the dependency 'cache': it is not allowed") {
		t.Error(answer)
	}
}
