package main

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// overlay holds the fields of a Sync that change what is rendered.
type overlay struct {
	// Folders are the kustomizations that are changed, relative to the repository's root.
	Folders []string `json:"folders"`
	// Objects are further objects that are changed, each as JSON.
	Objects []string `json:"objects"`
	// Components are folders, relative to the folder of the request.
	Components []string `json:"components"`
	// Namespace is where objects are applied whose manifests name no namespace.
	Namespace string `json:"namespace"`
	// MovesAll is set if the objects whose manifests name another namespace are applied there, too.
	MovesAll          bool              `json:"movesAll"`
	NamePrefix        string            `json:"namePrefix"`
	NameSuffix        string            `json:"nameSuffix"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	Images            []types.Image     `json:"images"`
	Patches           []types.Patch     `json:"patches"`
}

// The folder that Kustomize sees with an overlay. The repository is not at the root: Kustomize refuses a kustomization
// that uses a folder above itself, and the root is above overlayFolder, too.
const (
	overlayFolder = "/.gitseal-overlay"
	// objectName is the beginning of the name of an object's file; the rest is the object's index.
	objectName = "gitseal-object-"
)

// build adds kustomizations to the files, each on top of the one before, so that patches take effect last: within one
// kustomization, Kustomize would apply them before its other fields. It returns the folder of the last kustomization.
func (o *overlay) build(folder string, files *repository) (string, error) {
	first := types.Kustomization{}
	layer := func(number int) string { return path.Join(overlayFolder, strconv.Itoa(number)) }
	for index, object := range o.Objects {
		name := objectName + strconv.Itoa(index)
		files.add(path.Join(layer(1), name), []byte(object))
		first.Resources = append(first.Resources, name)
	}
	for _, of := range o.Folders {
		first.Resources = append(first.Resources, relative(path.Join(files.mount, of)))
	}
	for _, component := range o.Components {
		if strings.Contains(component, "://") {
			return "", failed("components: '%s' is remote, which is not supported: add it to the repository", component)
		}
		if path.IsAbs(component) {
			return "", failed("components: '%s' must be relative to the Sync's path", component)
		}
		at := path.Join(files.mount, folder, component)
		if at != files.mount && !strings.HasPrefix(at, files.mount+"/") {
			return "", failed("components: '%s' is outside of the repository", component)
		}
		found, err := files.at(at)
		if err != nil {
			return "", err
		}
		if !found.isDir {
			return "", failed("components: '%s' does not exist: the repository has no folder '%s'", component, inside(strings.TrimPrefix(at, files.mount)))
		}
		first.Components = append(first.Components, relative(at))
	}
	layers := []types.Kustomization{first}
	names := o.NamePrefix != "" || o.NameSuffix != ""
	if names || len(o.CommonLabels)+len(o.CommonAnnotations)+len(o.Images) > 0 {
		second := types.Kustomization{
			NamePrefix: o.NamePrefix, NameSuffix: o.NameSuffix, CommonAnnotations: o.CommonAnnotations, Images: o.Images,
		}
		if len(o.CommonLabels) > 0 {
			second.Labels = []types.Label{{Pairs: o.CommonLabels, IncludeSelectors: true}}
		}
		if names {
			second.Configurations = []string{secretReferences}
		}
		layers = append(layers, second)
	}
	if len(o.Patches) > 0 {
		layers = append(layers, types.Kustomization{Patches: o.Patches})
	}
	if names && o.Namespace != "" {
		transformers, err := o.namespaces()
		if err != nil {
			return "", err
		}
		layers = append(layers, types.Kustomization{Transformers: transformers})
	}
	for index := range layers {
		if index > 0 {
			layers[index].Resources = []string{path.Join("..", strconv.Itoa(index))}
		}
		if index+1 == len(layers) {
			layers[index].BuildMetadata = []string{originAnnotations}
		}
		text, err := yaml.Marshal(layers[index])
		if err != nil {
			return "", err
		}
		files.add(path.Join(layer(index+1), "kustomization.yaml"), text)
		files.add(path.Join(layer(index+1), secretReferences), []byte(namesOfSealedSecrets))
	}
	return layer(len(layers)), nil
}

// The namespace and the annotation that objects without a namespace have for a moment.
const (
	noNamespace    = "gitseal-none"
	hasNoNamespace = "internal.gitseal.dev/no-namespace"
)

// namespaces returns transformers that give all objects the namespace that they are applied in. Kustomize follows a name only
// within one namespace, and does so after all layers. For Kustomize, an object without a namespace is in the namespace
// `default`. The objects are marked, so that withoutNamespace can take the namespace away again: whether a custom resource is
// namespaced is not known here.
func (o *overlay) namespaces() ([]string, error) {
	change := func(name, namespace string, operation map[string]string) (map[string]any, error) {
		text, err := json.Marshal([]map[string]string{operation})
		return map[string]any{
			"apiVersion": "builtin", "kind": "PatchTransformer", "metadata": map[string]string{"name": name},
			"target": map[string]string{"namespace": namespace}, "patch": string(text),
		}, err
	}
	named := map[string]any{
		"apiVersion": "builtin", "kind": "NamespaceTransformer", "metadata": map[string]string{"name": "none", "namespace": noNamespace},
		"unsetOnly": true, "setRoleBindingSubjects": "none",
	}
	mark := map[string]string{"op": "add", "path": "/metadata/annotations/" + strings.ReplaceAll(hasNoNamespace, "/", "~1"), "value": ""}
	marked, err := change("mark", noNamespace, mark)
	if err != nil {
		return nil, err
	}
	from := noNamespace
	if o.MovesAll {
		// Every namespace. Kustomize matches this with `_non_namespaceable_` for objects that cannot have one.
		from = "[-a-z0-9]+"
	}
	moved, err := change("move", from, map[string]string{"op": "replace", "path": "/metadata/namespace", "value": o.Namespace})
	if err != nil {
		return nil, err
	}
	var transformers []string
	for _, one := range []any{named, marked, moved} {
		text, err := yaml.Marshal(one)
		if err != nil {
			return nil, err
		}
		transformers = append(transformers, string(text))
	}
	return transformers, nil
}

// withoutNamespace takes the namespace away from an object that had none before the transformers of namespaces.
func withoutNamespace(object *resource.Resource) error {
	annotations := object.GetAnnotations()
	if _, is := annotations[hasNoNamespace]; !is {
		return nil
	}
	delete(annotations, hasNoNamespace)
	if err := object.SetAnnotations(annotations); err != nil {
		return err
	}
	return object.SetNamespace("")
}

// explained explains an error of Kustomize as the function explained does, and also says which patch caused the error,
// if that is known.
func (o *overlay) explained(err error, files *repository) *failure {
	failed := explained(err, files)
	if o == nil {
		return failed
	}
	text := err.Error()
	which := []int{}
	for index, patch := range o.Patches {
		if isBlamed(patch.Patch, text) {
			which = append(which, index)
		}
	}
	if len(which) == 1 {
		failed.Message = fmt.Sprintf("patches[%d]: %s", which[0], failed.Message)
	}
	return failed
}

var missingPath = regexp.MustCompile(`operation does not apply: .*?: (/\S*?):? |^error in \w+ for path: '([^']*)'`)

// isBlamed returns whether text, an error of Kustomize, is about this patch.
func isBlamed(patch, text string) bool {
	patch = strings.TrimSpace(patch)
	if strings.Contains(text, fmt.Sprintf("[patch: %q]", patch)) {
		return true
	}
	if found := noMatch.FindStringSubmatch(text); found != nil {
		id := objectID.FindStringSubmatch(found[1])
		return id != nil && strings.Contains(patch, id[1]) && strings.Contains(patch, id[2])
	}
	if found := missingPath.FindStringSubmatch(text); found != nil {
		return strings.Contains(patch, found[1]+found[2])
	}
	return false
}

// index returns the index of the object that the file at a path contains.
func (o *overlay) index(name string) (int, bool) {
	base, is := strings.CutPrefix(path.Base(name), objectName)
	if o == nil || !is || !isInOverlay(name) {
		return 0, false
	}
	index, err := strconv.Atoi(base)
	return index, err == nil
}

// isInOverlay returns whether a path is one of those that an overlay adds.
func isInOverlay(name string) bool { return strings.HasPrefix(name, overlayFolder+"/") }

// relative makes an absolute path relative to the folder of a layer.
func relative(name string) string { return path.Join("../..", name) }

// secretReferences is the name of a file with namesOfSealedSecrets.
const secretReferences = "names.yaml"

// namesOfSealedSecrets is a configuration for Kustomize: the fields that contain the name of a Secret. If the SealedSecret
// of this Secret gets another name, the fields get it, too.
var namesOfSealedSecrets = func() string {
	var fields strings.Builder
	field := func(path string) { fmt.Fprintf(&fields, "  - path: %s\n", path) }
	for _, pod := range []string{"spec", "spec/template/spec", "spec/jobTemplate/spec/template/spec", "template/spec"} {
		for _, containers := range []string{"containers", "initContainers", "ephemeralContainers"} {
			field(pod + "/" + containers + "/env/valueFrom/secretKeyRef/name")
			field(pod + "/" + containers + "/envFrom/secretRef/name")
		}
		field(pod + "/imagePullSecrets/name")
		field(pod + "/volumes/secret/secretName")
		field(pod + "/volumes/projected/sources/secret/name")
		field(pod + "/volumes/csi/nodePublishSecretRef/name")
	}
	for _, kind := range []struct{ group, name, path string }{
		{"", "ServiceAccount", "imagePullSecrets/name"},
		{"", "ServiceAccount", "secrets/name"},
		{"networking.k8s.io", "Ingress", "spec/tls/secretName"},
	} {
		field(kind.path)
		fmt.Fprintf(&fields, "    group: %q\n    kind: %s\n", kind.group, kind.name)
	}
	return "nameReference:\n- group: bitnami.com\n  kind: SealedSecret\n  fieldSpecs:\n" + fields.String()
}()
