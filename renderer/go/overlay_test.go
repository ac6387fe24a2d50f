package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
)

const (
	oneMap     = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`
	oneSealed  = `{"apiVersion":"bitnami.com/v1alpha1","kind":"SealedSecret","metadata":{"name":"db"},"spec":{"encryptedData":{}}}`
	usesSecret = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"web:1",` +
		`"env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"db","key":"x"}}}],"envFrom":[{"secretRef":{"name":"db"}}]}],` +
		`"volumes":[{"name":"v","secret":{"secretName":"db"}},{"name":"w","projected":{"sources":[{"secret":{"name":"db"}}]}}],"imagePullSecrets":[{"name":"db"}]}}}}`
)

// resID selects objects by a pattern for their names.
func resID(name string) resid.ResId { return resid.ResId{Name: name} }

// overlaid answers a request for a folder with changes.
func overlaid(t *testing.T, files map[string]string, folder string, changes overlay) (made result, failed string) {
	t.Helper()
	answers, err := answersTo(t, files, request{Kustomize: &kustomization{Path: folder, Overlay: &changes}})
	if err != nil || len(answers) != 1 {
		t.Fatalf("%v %q", err, answers)
	}
	var why failure
	if err := json.Unmarshal([]byte(answers[0]), &why); err != nil {
		t.Fatalf("%v %q", err, answers)
	}
	if err := json.Unmarshal([]byte(answers[0]), &made); err != nil {
		t.Fatalf("%v %q", err, answers)
	}
	return made, why.Message
}

// TestWhatAnOverlayChangesKeepsItsPlace checks that every object is found again, whatever it is called and wherever it is.
func TestWhatAnOverlayChangesKeepsItsPlace(t *testing.T) {
	files := map[string]string{
		"kustomization.yaml":     "resources: [b.yaml]\nconfigMapGenerator: [{name: made, literals: [a=b]}]\n",
		"b.yaml":                 "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
		"part/kustomization.yml": "kind: Component\nresources: [c.yaml]\nconfigMapGenerator: [{name: of-part, literals: [a=b]}]\n",
		"part/c.yaml":            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
	}
	made, failed := overlaid(t, files, "", overlay{
		Folders: []string{""}, Objects: []string{oneMap, oneSealed}, Components: []string{"part"}, NamePrefix: "p-", NameSuffix: "-s",
	})
	var found []string
	for _, one := range made.Objects {
		index := -1
		if one.Index != nil {
			index = *one.Index
		}
		_, name, _ := strings.Cut(one.YAML, "  name: ")
		name, _, _ = strings.Cut(name, "\n")
		found = append(found, fmt.Sprintf("%s %s %v %d", name, one.Origin, one.Generated, index))
	}
	expected := []string{
		"p-a-s  false 0", "p-b-s b.yaml false -1", "p-c-s part/c.yaml false -1", "p-made-s-bm5h5c4mgh kustomization.yaml true -1",
		"p-of-part-s-bm5h5c4mgh part/kustomization.yml true -1", "p-db-s  false 1",
	}
	if failed != "" || !sameButHashes(found, expected) {
		t.Errorf("%s %q", failed, found)
	}
}

// sameButHashes compares lines. The hash at the end of a generated name may differ.
func sameButHashes(found, expected []string) bool {
	if len(found) != len(expected) {
		return false
	}
	for index := range found {
		ours, ourRest, _ := strings.Cut(found[index], " ")
		theirs, theirRest, _ := strings.Cut(expected[index], " ")
		isGenerated := strings.Contains(theirRest, "true")
		if isGenerated && len(ours) == len(theirs) {
			ours, theirs = ours[:len(ours)-10], theirs[:len(theirs)-10]
		}
		if ours != theirs || ourRest != theirRest {
			return false
		}
	}
	return true
}

// TestWhatUsesASealedSecretGetsItsNewName checks the fields that contain the name of a Secret.
func TestWhatUsesASealedSecretGetsItsNewName(t *testing.T) {
	account := `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"s"},"imagePullSecrets":[{"name":"db"}]}`
	ingress := `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i"},"spec":{"tls":[{"secretName":"db"}]}}`
	job := strings.Replace(strings.Replace(usesSecret, `"spec":{"template"`, `"spec":{"jobTemplate":{"spec":{"template"`, 1), `]}}}}`, `]}}}}}}`, 1)
	job = strings.Replace(strings.Replace(job, "apps/v1", "batch/v1", 1), "Deployment", "CronJob", 1)
	own := strings.Replace(strings.Replace(usesSecret, "apps/v1", "example.com/v1", 1), "Deployment", "Shop", 1)
	made, failed := overlaid(t, nil, "app", overlay{Objects: []string{oneSealed, usesSecret, account, ingress, job, own}, NamePrefix: "p-"})
	text := ""
	for _, one := range made.Objects {
		text += one.YAML
	}
	if failed != "" || strings.Count(text, ": p-db\n") != 1+3*5+2 || strings.Contains(text, ": db\n") {
		t.Errorf("%s %s", failed, text)
	}
}

// TestANameIsFollowedIntoTheNamespaceThatAnObjectIsAppliedIn checks that it makes no difference whether a manifest names the
// namespace of its Sync, and that an object without a namespace still has none afterwards.
func TestANameIsFollowedIntoTheNamespaceThatAnObjectIsAppliedIn(t *testing.T) {
	in := func(namespace, object string) string {
		return strings.Replace(object, `"metadata":{`, `"metadata":{"namespace":"`+namespace+`",`, 1)
	}
	own := `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"db"}}`
	account := `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"web"}}`
	binding := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"web"},` +
		`"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},` +
		`"subjects":[{"kind":"ServiceAccount","name":"web","namespace":"shop"}]}`
	kustomization := map[string]string{
		"app/kustomization.yaml": "resources: [db.yaml, web.yaml]\nnamePrefix: own-\n",
		"app/db.yaml":            in("shop", oneSealed), "app/web.yaml": usesSecret,
	}
	for name, one := range map[string]struct {
		changes  overlay
		renamed  int
		others   string
		contains []string
	}{
		"the secret has one":       {overlay{Objects: []string{in("shop", oneSealed), usesSecret}}, 6, ": db\n", nil},
		"its user has one":         {overlay{Objects: []string{oneSealed, in("shop", usesSecret)}}, 6, ": db\n", nil},
		"neither has one":          {overlay{Objects: []string{oneSealed, usesSecret, own}}, 7, "namespace", nil},
		"both have one":            {overlay{Objects: []string{in("a", oneSealed), in("a", usesSecret)}}, 6, "namespace: shop", nil},
		"the secret is elsewhere":  {overlay{Objects: []string{in("a", oneSealed), usesSecret}}, 1, "namespace: shop", []string{": db\n"}},
		"the secret is in default": {overlay{Objects: []string{in("default", oneSealed), usesSecret}}, 1, "namespace: shop", []string{": db\n"}},
		"all are moved":            {overlay{Objects: []string{in("a", oneSealed), usesSecret}, MovesAll: true}, 6, ": db\n", nil},
		"a kustomization":          {overlay{Folders: []string{"app"}}, 0, ": own-db\n", []string{"p-own-db"}},
		"a patch of the old id": {overlay{
			Objects: []string{in("shop", oneSealed), usesSecret},
			Patches: []types.Patch{{Patch: "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: web}\nspec: {replicas: 3}\n"}},
		}, 6, ": db\n", []string{"replicas: 3"}},
		"a subject": {overlay{Objects: []string{account, binding}}, 0, "name: web\n", []string{"- kind: ServiceAccount\n  name: p-web\n  namespace: shop\n"}},
	} {
		one.changes.NamePrefix, one.changes.Namespace = "p-", "shop"
		made, failed := overlaid(t, kustomization, "app", one.changes)
		text := ""
		for _, object := range made.Objects {
			text += object.YAML
		}
		has := func(part string) bool { return strings.Contains(text, part) }
		if failed != "" || strings.Count(text, ": p-db\n") != one.renamed || has(one.others) || has("gitseal") {
			t.Errorf("%s: %s %s", name, failed, text)
		}
		for _, part := range one.contains {
			if !has(part) {
				t.Errorf("%s: %q is missing in %s", name, part, text)
			}
		}
	}
}

// TestAnOverlayThatCannotBeAppliedSaysWhy checks the errors. None of them quotes a patch, because it may hold a value.
func TestAnOverlayThatCannotBeAppliedSaysWhy(t *testing.T) {
	all := &types.Selector{}
	patches := func(target *types.Selector, texts ...string) (made overlay) {
		made.Objects = []string{oneMap}
		for _, text := range texts {
			made.Patches = append(made.Patches, types.Patch{Patch: text, Target: target})
		}
		return made
	}
	files := map[string]string{
		"base/kustomization.yaml":   "resources: [c.yaml, gone.yaml]\n",
		"base/c.yaml":               "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
		"part/kustomization.yaml":   "kind: Component\nresources: [gone.yaml]\n",
		"again/kustomization.yaml":  "kind: Component\nresources: [a.yaml]\n",
		"again/a.yaml":              "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
		"cycle/kustomization.yaml":  "resources: [../cycle2]\n",
		"cycle2/kustomization.yaml": "resources: [../cycle]\n",
	}
	named := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {p: hunter2}\n"
	}
	for name, one := range map[string]struct {
		changes overlay
		says    string
	}{
		"no object of this name":    {patches(nil, named("a"), named("gone")), "patches[1]: a patch without target names ConfigMap gone, which does not exist"},
		"a JSON patch for nothing":  {patches(nil, "- {op: add, path: /data, value: hunter2}"), "patches[0]: a JSON patch has no target"},
		"a path that is not there":  {patches(all, "- {op: add, path: /data, value: {}}", "- {op: replace, path: /data/hunter/p, value: hunter2}"), "patches[1]: replace operation does not apply: "},
		"a field that is not there": {patches(all, "- {op: add, path: /data, value: {}}", "- {op: remove, path: /data/gone}"), "patches[1]: error in remove for path: 'data/gone'"},
		"not a patch":               {patches(all, "just hunter2"), "a patch is neither a strategic merge patch nor a JSON patch"},
		"not YAML":                  {patches(all, "{hunter2"), "a patch is neither a strategic merge patch nor a JSON patch"},
		"an empty patch":            {patches(all, " "), "a patch is empty"},
		"two documents":             {patches(all, named("a")+"---\n"+named("a")), "a patch with a target has several documents"},
		"without a name":            {patches(all, "- {op: remove, path: /metadata}"), "missing metadata.name"},
		"a wrong selector":          {patches(&types.Selector{LabelSelector: "a in ("}, named("a")), "unable to parse requirement"},
		"a wrong pattern":           {patches(&types.Selector{AnnotationSelector: "a=b", ResId: resID("((")}, named("a")), "a regular expression is not valid: missing closing )"},
		"a huge pattern":            {patches(&types.Selector{ResId: resID("((a{1000}){1000}){1000}")}, named("a")), "a regular expression is not valid: "},
		"twice":                     {overlay{Objects: []string{oneMap, oneMap}, NamePrefix: "p-"}, "gitseal-object-1: there is another ConfigMap a"},
		"twice by a component":      {overlay{Objects: []string{oneMap}, Components: []string{"../again"}}, "there is another ConfigMap a"},
		"not a component":           {overlay{Objects: []string{oneMap}, Components: []string{"../base"}}, "expected kind 'Component' for path 'base'"},
		"no component":              {overlay{Objects: []string{oneMap}, Components: []string{"../none"}}, "components: '../none' does not exist: the repository has no folder 'none'"},
		"above the repository":      {overlay{Objects: []string{oneMap}, Components: []string{"../../../etc"}}, "components: '../../../etc' is outside of the repository"},
		"the overlay itself":        {overlay{Objects: []string{oneMap}, Components: []string{"../../.gitseal-overlay/1"}}, "is outside of the repository"},
		"a remote component":        {overlay{Objects: []string{oneMap}, Components: []string{"https://example.com/x"}}, "components: 'https://example.com/x' is remote, which is not supported"},
		"an absolute component":     {overlay{Objects: []string{oneMap}, Components: []string{"/part"}}, "components: '/part' must be relative"},
		"a file of a component":     {overlay{Objects: []string{oneMap}, Components: []string{"../part"}}, "'gone.yaml' does not exist: the repository has no 'part/gone.yaml'"},
		"a file of the folder":      {overlay{Folders: []string{"base"}, NamePrefix: "p-"}, "'gone.yaml' does not exist: the repository has no 'base/gone.yaml'"},
		"a cycle":                   {overlay{Folders: []string{"cycle"}, NamePrefix: "p-"}, "the kustomizations refer to each other"},
	} {
		_, failed := overlaid(t, files, "app", one.changes)
		if !strings.Contains(failed, one.says) || strings.Contains(failed, "hunter2") || strings.Contains(failed, "'.gitseal-") {
			t.Errorf("%s: %q", name, failed)
		}
	}
}

// TestAnObjectWhoseAnnotationsAreReplacedIsNotTakenForAnother checks that the kustomization that a layer writes does
// not count as the file that an object comes from.
func TestAnObjectWhoseAnnotationsAreReplacedIsNotTakenForAnother(t *testing.T) {
	patch := "- {op: add, path: /metadata/annotations, value: {a: b}}"
	made, failed := overlaid(t, nil, "app", overlay{Objects: []string{oneMap}, Patches: []types.Patch{{Patch: patch, Target: &types.Selector{}}}})
	if failed != "" || len(made.Objects) != 1 || made.Objects[0].Origin != "" || made.Objects[0].Generated {
		t.Errorf("%s %v", failed, made)
	}
}

// TestTheLayersHaveTheOrderOfTheFields checks that each field sees what those before it made.
func TestTheLayersHaveTheOrderOfTheFields(t *testing.T) {
	changes := overlay{
		Objects: []string{usesSecret}, NamePrefix: "p-", Images: []types.Image{{Name: "web", NewTag: "2"}},
		CommonLabels: map[string]string{"team": "a"},
		Patches: []types.Patch{
			{Patch: "- {op: test, path: /spec/template/spec/containers/0/image, value: 'web:2'}\n- {op: replace, path: /metadata/labels/team, value: b}", Target: &types.Selector{ResId: resID("p-web")}},
			{Patch: "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: web}\nspec: {replicas: 3}\n"},
		},
	}
	made, failed := overlaid(t, nil, "app", changes)
	if failed != "" || len(made.Objects) != 1 {
		t.Fatalf("%s %v", failed, made)
	}
	for _, part := range []string{"name: p-web\n", "image: web:2\n", "  labels:\n    team: b\n", "      team: a\n", "replicas: 3\n"} {
		if !strings.Contains(made.Objects[0].YAML, part) {
			t.Errorf("%q is missing in %s", part, made.Objects[0].YAML)
		}
	}
}
