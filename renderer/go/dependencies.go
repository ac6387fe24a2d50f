package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/ignore"
)

// chartRequest is a request for a chart of a chart repository or registry.
type chartRequest struct {
	Repository string `json:"repository"`
	Name       string `json:"name"`
	Version    string `json:"version"`
}

// addLocked adds to a chart the charts that it depends on and that are missing in charts/, as `helm dependency build` would: at the
// versions in Chart.lock. Without a Chart.lock, nothing is added.
func (s *chartSource) addLocked(made *chart.Chart) error {
	missing := missingCharts(made)
	if len(missing) == 0 || made.Lock == nil {
		return nil
	}
	file := s.chartFile(made)
	digest, err := lockDigest(made.Metadata.Dependencies, made.Lock.Dependencies)
	if err != nil {
		return err
	}
	if digest != made.Lock.Digest {
		return failed("%s: Chart.lock does not belong to these dependencies: run `helm dependency update`, and commit Chart.lock", file)
	}
	known := map[chartRequest]bool{}
	for _, wanted := range missing {
		asked, err := locked(wanted, made.Lock)
		if err != nil {
			return failed("%s: %s", file, err)
		}
		if known[asked] {
			continue
		}
		known[asked] = true
		one, err := s.loadRemote(asked)
		if err != nil {
			return failed("%s: the dependency '%s': %s", file, wanted.Name, err)
		}
		made.AddDependency(one)
	}
	return nil
}

// locked returns what Chart.lock names for a dependency.
func locked(wanted *chart.Dependency, lock *chart.Lock) (chartRequest, error) {
	for _, one := range lock.Dependencies {
		if one.Name == wanted.Name && one.Repository == wanted.Repository && chartutil.IsCompatibleRange(wanted.Version, one.Version) {
			return chartRequest{one.Repository, one.Name, one.Version}, nil
		}
	}
	return chartRequest{}, fmt.Errorf("Chart.lock has no version of '%s' that fits '%s'", wanted.Name, wanted.Version)
}

// lockDigest computes the digest of Chart.lock as Helm does: of the dependencies in Chart.yaml, and those in Chart.lock.
func lockDigest(wanted, locked []*chart.Dependency) (string, error) {
	text, err := json.Marshal([2][]*chart.Dependency{wanted, locked})
	return fmt.Sprintf("sha256:%x", sha256.Sum256(text)), err
}

// loadRemote reads a chart of a chart repository or registry.
func (s *chartSource) loadRemote(asked chartRequest) (*chart.Chart, error) {
	text, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	found, err := s.files.remoteFolder(frameChart, text)
	if err != nil {
		s.files.broken = err
		return nil, err
	}
	if found.Refusal != "" {
		return nil, failed("%s", found.Refusal)
	}
	var content []*archive.BufferedFile
	// It was an archive, in which .helmignore has no meaning.
	if err := s.walk(found.Folder, "", ignore.Empty(), &content, 0); err != nil {
		return nil, err
	}
	made, err := s.loadFiles(strings.TrimPrefix(found.Folder, "/"), content, 1)
	if err != nil {
		return nil, err
	}
	if made.Name() != asked.Name || made.Metadata.Version != asked.Version {
		return nil, fmt.Errorf("the archive has the chart '%s' %s", made.Name(), made.Metadata.Version)
	}
	return made, nil
}

// missingCharts returns the dependencies that are not in charts/.
func missingCharts(of *chart.Chart) []*chart.Dependency {
	there := map[string]bool{}
	for _, dependency := range of.Dependencies() {
		there[dependency.Name()] = true
	}
	var missing []*chart.Dependency
	for _, wanted := range of.Metadata.Dependencies {
		if !there[wanted.Name] {
			missing = append(missing, wanted)
		}
	}
	return missing
}

// nameRemoteCharts replaces in a result the folders of remote charts by the names of these charts.
func (r *repository) nameRemoteCharts(made *result) {
	for index := range made.Objects {
		made.Objects[index].Origin = r.inRepository(path.Join("/", made.Objects[index].Origin))
	}
	for index := range made.Warnings {
		made.Warnings[index] = r.asInRepository(made.Warnings[index])
	}
}
