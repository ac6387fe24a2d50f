package main

import (
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// kustomization asks for what `kustomize build` makes of a folder.
type kustomization struct {
	// Path is the folder, relative to the repository's root.
	Path string `json:"path"`
}

// object is one object, and where it comes from.
type object struct {
	// Origin is the file of the repository that the object, or what generated it, stands in; empty if that is not known.
	Origin string `json:"origin,omitempty"`
	// Generated says that the object stands in no file as it is: a generator made it.
	Generated bool `json:"generated,omitempty"`
	// YAML is one document.
	YAML string `json:"yaml"`
}

// failure is why there is no result.
type failure struct {
	// Message says what is wrong, and where, if that is known: `file:line`.
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Message }

// originAnnotations is the option of Kustomize that has it tell where every object comes from.
const originAnnotations = types.OriginAnnotations

// build renders a folder. Files of the whole repository can be read, as with `--load-restrictor LoadRestrictionsNone`:
// the repository is all that there is.
func (k kustomization) build(files *repository) ([]object, error) {
	folder := absolute(k.Path)
	asked := false
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		files.edit[path.Join(folder, name)] = func(content []byte) []byte {
			edited, has := withOrigins(content)
			asked = asked || has
			return edited
		}
	}
	options := krusty.MakeDefaultOptions()
	// What `kustomize build` does without sortOptions in the kustomization.
	options.Reorder = krusty.ReorderOptionLegacy
	options.LoadRestrictions = types.LoadRestrictionsNone
	options.PluginConfig = types.DisabledPluginConfig()
	made, err := krusty.MakeKustomizer(options).Run(files, folder)
	if files.broken != nil {
		return nil, files.broken
	}
	if err != nil {
		return nil, explained(err)
	}
	var objects []object
	for _, resource := range made.Resources() {
		origin, err := resource.GetOrigin()
		if err != nil {
			return nil, explained(err)
		}
		var one object
		if origin != nil {
			from := origin.Path
			if origin.ConfiguredIn != "" {
				from, one.Generated = origin.ConfiguredIn, true
			}
			one.Origin = strings.TrimPrefix(path.Join(folder, from), "/")
			if !asked {
				if err := resource.SetOrigin(nil); err != nil {
					return nil, explained(err)
				}
			}
		}
		text, err := resource.AsYAML()
		if err != nil {
			return nil, explained(err)
		}
		one.YAML = string(text)
		objects = append(objects, one)
	}
	return objects, nil
}

// withOrigins is a kustomization that asks for origins, and whether it did before. What cannot be read stays as it is, for
// Kustomize to say why.
func withOrigins(content []byte) ([]byte, bool) {
	node, err := yaml.Parse(string(content))
	if err != nil || node.YNode() == nil || node.YNode().Kind != yaml.MappingNode {
		return content, false
	}
	options, err := node.Pipe(yaml.LookupCreate(yaml.SequenceNode, "buildMetadata"))
	if err != nil {
		return content, false
	}
	known, err := options.Elements()
	if err != nil {
		return content, false
	}
	has := slices.ContainsFunc(known, func(option *yaml.RNode) bool { return yaml.GetValue(option) == originAnnotations })
	if has {
		return content, true
	}
	if err := options.PipeE(yaml.Append(yaml.NewStringRNode(originAnnotations).YNode())); err != nil {
		return content, false
	}
	text, err := node.String()
	if err != nil {
		return content, false
	}
	return []byte(text), false
}
