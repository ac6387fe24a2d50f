package main

import (
	"path"
	"slices"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// kustomization is a request for the output of `kustomize build` for a folder.
type kustomization struct {
	// Path is the folder, relative to the repository's root.
	Path string `json:"path"`
	// Overlay is set if a Sync changes what is rendered. Then the folder need not be a kustomization.
	Overlay *overlay `json:"overlay"`
}

// originAnnotations is the option with which Kustomize annotates every object with the file that it comes from.
const originAnnotations = types.OriginAnnotations

// build renders a folder. Kustomize may read files from anywhere in the repository, as with `--load-restrictor
// LoadRestrictionsNone`, and sees no other files.
func (k kustomization) build(files *repository) ([]object, error) {
	files.mount, files.hasBases = newMount(), true
	folder := path.Join(files.mount, absolute(k.Path))
	asked := false
	if k.Overlay != nil {
		var err error
		if folder, err = k.Overlay.build(k.Path, files); err != nil {
			return nil, err
		}
	} else {
		for _, name := range konfig.RecognizedKustomizationFileNames() {
			files.edit[path.Join(folder, name)] = func(content []byte) []byte {
				edited, has := withOrigins(content)
				asked = asked || has
				return edited
			}
		}
	}
	options := krusty.MakeDefaultOptions()
	// This is the default order of `kustomize build`, if the kustomization has no sortOptions.
	options.Reorder = krusty.ReorderOptionLegacy
	options.LoadRestrictions = types.LoadRestrictionsNone
	options.PluginConfig = types.DisabledPluginConfig()
	defer forgetOwnSchema()
	made, err := withOwnSchema(func() (resmap.ResMap, error) { return krusty.MakeKustomizer(options).Run(files, folder) })
	if files.broken != nil {
		return nil, files.broken
	}
	if files.refused != nil {
		return nil, files.refused
	}
	if err != nil {
		return nil, k.Overlay.explained(err, files)
	}
	var objects []object
	for _, resource := range made.Resources() {
		origin, err := resource.GetOrigin()
		if err != nil {
			return nil, explained(err, files)
		}
		var one object
		if origin != nil {
			from := origin.Path
			if origin.ConfiguredIn != "" {
				from, one.Generated = origin.ConfiguredIn, true
			}
			from = path.Join(folder, from)
			if index, is := k.Overlay.index(from); is {
				one.Index = &index
			} else if isInOverlay(from) {
				// A patch replaced all annotations, also the one with the origin, so Kustomize takes the object for a generated
				// one.
				one.Generated = false
			} else if files.hasRead(from) {
				// Any patch can set the annotation, so it may name anything.
				one.Origin = files.inRepository(from)
			}
			if !asked {
				if err := resource.SetOrigin(nil); err != nil {
					return nil, explained(err, files)
				}
			}
		}
		if err := files.nameRemotes(folder, resource); err != nil {
			return nil, explained(err, files)
		}
		if k.Overlay != nil {
			if err := withoutNamespace(resource); err != nil {
				return nil, explained(err, files)
			}
		}
		text, err := resource.AsYAML()
		if err != nil {
			return nil, explained(err, files)
		}
		one.YAML = string(text)
		objects = append(objects, one)
	}
	return objects, nil
}

// defaultSchema is the schema of Kustomize without `openapi` in a kustomization.
var defaultSchema = openapi.GetSchemaVersion()

// schemaIsUsed is true if an earlier render may have read the default schema into memory.
var schemaIsUsed bool

// withOwnSchema runs `run` as if it were the first render of this process. Kustomize keeps schemas in memory: it would
// add the schema of a kustomization with `openapi` to the schemas that earlier renders had read. And an earlier render may be
// that of another tenant. The default schema is kept, because it takes long to read.
func withOwnSchema(run func() (resmap.ResMap, error)) (resmap.ResMap, error) {
	wasUsed := schemaIsUsed
	schemaIsUsed = true
	made, err := run()
	if openapi.GetSchemaVersion() == defaultSchema || !wasUsed {
		return made, err
	}
	openapi.ResetOpenAPI()
	return run()
}

// forgetOwnSchema drops the schema of a kustomization with `openapi`, so that later renders neither use it nor lack the memory
// that it takes.
func forgetOwnSchema() {
	if openapi.GetSchemaVersion() != defaultSchema {
		openapi.ResetOpenAPI()
		schemaIsUsed = false
	}
}

// withOrigins adds originAnnotations to a kustomization, and returns whether the kustomization had that option already. A
// file that cannot be parsed is not changed; then Kustomize reports what is wrong with it.
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
