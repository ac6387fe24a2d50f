//! Finds the programs of a control plane, or builds them once from Go modules and keeps them below `target/`.
//!
//! The Go modules are in `tests/localcluster/parts/`. Their programs are in `target/localcluster/NAME-HASH/`. The hash
//! is that of the module's files. So each version of these files has its own programs, and a checkout of an older
//! commit finds those that were built for it.

mod build;

use std::{env, path::PathBuf};

use build::Module;

use crate::error::{Error, Result};

/// The environment variable with the path of a directory that has `etcd` and `kube-apiserver`. The envtest tools of
/// Kubebuilder set it.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// Sets the version. Clients cannot parse the version of a build without these flags.
const KUBERNETES_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3";

const KUBERNETES: Module = Module {
    name: "kubernetes",
    part: "the Kubernetes control plane",
    takes: "about four minutes, once",
    ldflags: KUBERNETES_FLAGS,
    tags: "",
    targets: &[("kubernetes", ".")],
    links: &[
        (ETCD, "kubernetes"),
        (API_SERVER, "kubernetes"),
        (CONTROLLER_MANAGER, "kubernetes"),
        (SCHEDULER, "kubernetes"),
    ],
};

const SEALED_SECRETS: Module = Module {
    name: "sealed-secrets",
    part: "kubeseal and the Sealed Secrets controller",
    takes: "about a minute, once",
    ldflags: "-s -w -X main.VERSION=0.36.6",
    tags: "",
    targets: &[
        ("kubeseal", "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal"),
        ("controller", "github.com/bitnami-labs/sealed-secrets/cmd/controller"),
    ],
    links: &[],
};

const AGE: Module = Module {
    name: "age",
    part: "age",
    takes: "half a minute, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[
        ("age", "filippo.io/age/cmd/age"),
        ("age-keygen", "filippo.io/age/cmd/age-keygen"),
        // This plugin gives age a passphrase without a terminal.
        ("age-plugin-batchpass", "filippo.io/age/cmd/age-plugin-batchpass"),
    ],
    links: &[],
};

const KUSTOMIZE: Module = Module {
    name: "kustomize",
    part: "kustomize",
    takes: "half a minute, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("kustomize", "sigs.k8s.io/kustomize/kustomize/v5")],
    links: &[],
};

/// Templates can read Helm's version, and `renderer/build.rs` sets the same version.
const HELM: Module = Module {
    name: "helm",
    part: "helm",
    takes: "two minutes, once",
    ldflags: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    tags: "",
    targets: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    links: &[],
};

const REGISTRY: Module = Module {
    name: "registry",
    part: "the OCI registry",
    takes: "two and a half minutes, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("registry", "github.com/distribution/distribution/v3/cmd/registry")],
    links: &[],
};

const GITEA: Module = Module {
    name: "gitea",
    part: "Gitea",
    takes: "two and a half minutes, once",
    ldflags: "-s -w",
    tags: "sqlite sqlite_unlock_notify",
    targets: &[("gitea", ".")],
    links: &[],
};

const KUBECTL: Module = Module {
    name: "kubectl",
    part: "kubectl",
    takes: "less than a minute, once",
    ldflags: KUBERNETES_FLAGS,
    tags: "",
    targets: &[("kubectl", ".")],
    links: &[],
};

const SUPERVISE: Module = Module {
    name: "supervise",
    part: "the supervisor of test processes",
    takes: "seconds, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("supervise", ".")],
    links: &[],
};

const TEMPLATES: Module = Module {
    name: "templates",
    part: "Go's templates with sprig",
    takes: "seconds, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("templates", ".")],
    links: &[],
};

const ENVSUBST: Module = Module {
    name: "envsubst",
    part: "Flux's replacement of variables",
    takes: "seconds, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("envsubst", ".")],
    links: &[],
};

const KSTATUS: Module = Module {
    name: "kstatus",
    part: "the library kstatus",
    takes: "seconds, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("kstatus", ".")],
    links: &[],
};

const SSHGIT: Module = Module {
    name: "sshgit",
    part: "a server of Git over SSH",
    takes: "seconds, once",
    ldflags: "-s -w",
    tags: "",
    targets: &[("sshgit", ".")],
    links: &[],
};

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// The programs of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesParts {
    /// The store.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    assets: Option<PathBuf>,
}

impl KubernetesParts {
    /// The controller manager. It is built even if `KUBEBUILDER_ASSETS` is set, because the envtest tools do not
    /// include it.
    pub fn kube_controller_manager(&self) -> Result<PathBuf> {
        self.optional(CONTROLLER_MANAGER)
    }

    /// The scheduler. It is built unless the folder `KUBEBUILDER_ASSETS` has it.
    pub fn kube_scheduler(&self) -> Result<PathBuf> {
        self.optional(SCHEDULER)
    }

    fn optional(&self, program: &str) -> Result<PathBuf> {
        match self.assets.as_ref().map(|assets| assets.join(program)).filter(|path| path.is_file()) {
            Some(path) => Ok(path),
            None => Ok(KUBERNETES.folder()?.join(program)),
        }
    }
}

/// Finds the control plane in `KUBEBUILDER_ASSETS`, or builds it. Building takes about four minutes, the first time only.
pub fn kubernetes() -> Result<KubernetesParts> {
    if let Some(assets) = env::var_os(ASSETS).filter(|assets| !assets.is_empty()) {
        return from_assets(assets.into());
    }
    let folder = KUBERNETES.folder()?;
    Ok(KubernetesParts { etcd: folder.join(ETCD), kube_apiserver: folder.join(API_SERVER), assets: None })
}

/// The real `kubectl`, in the version of the control plane. It is built if it is missing.
pub fn kubectl() -> Result<PathBuf> {
    Ok(KUBECTL.folder()?.join("kubectl"))
}

/// The real `kustomize`, in the version of the library in `gitseal-renderer`. It is built if it is missing.
pub fn kustomize() -> Result<PathBuf> {
    Ok(KUSTOMIZE.folder()?.join("kustomize"))
}

/// The real `helm`, in the version of the library in `gitseal-renderer`. It is built if it is missing.
pub fn helm() -> Result<PathBuf> {
    Ok(HELM.folder()?.join("helm"))
}

/// A real OCI registry: the program `registry` of the project Distribution. It is built if it is missing.
pub fn registry() -> Result<PathBuf> {
    Ok(REGISTRY.folder()?.join("registry"))
}

/// The real Gitea, a forge, and the folder with its templates. It is built if it is missing.
pub fn gitea() -> Result<(PathBuf, PathBuf)> {
    Ok((GITEA.folder()?.join("gitea"), GITEA.source_of("code.gitea.io/gitea")?))
}

/// The real `kubeseal`. It is built if it is missing.
pub fn kubeseal() -> Result<PathBuf> {
    Ok(SEALED_SECRETS.folder()?.join("kubeseal"))
}

/// The real Sealed Secrets controller. It is built if it is missing.
pub fn sealed_secrets_controller() -> Result<PathBuf> {
    Ok(SEALED_SECRETS.folder()?.join("controller"))
}

/// A folder with the real `age`, `age-keygen` and `age-plugin-batchpass`. They are built if they are missing.
pub fn age() -> Result<PathBuf> {
    AGE.folder()
}

/// The YAML file with the CustomResourceDefinition of the Sealed Secrets project. The project's source is downloaded if it
/// is missing.
pub fn sealed_secrets_crd() -> Result<PathBuf> {
    let source = SEALED_SECRETS.source_of("github.com/bitnami-labs/sealed-secrets")?;
    Ok(source.join("helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml"))
}

/// A program that renders templates as Sealed Secrets does. It is built if it is missing. `parts/templates/main.go`
/// describes its input and output.
pub fn templates() -> Result<PathBuf> {
    Ok(TEMPLATES.folder()?.join("templates"))
}

/// A program that replaces variables in texts as Flux does. It is built if it is missing. `parts/envsubst/main.go` describes its
/// input and output.
pub fn envsubst() -> Result<PathBuf> {
    Ok(ENVSUBST.folder()?.join("envsubst"))
}

/// A program that says what the library `kstatus` says of objects. It is built if it is missing. `parts/kstatus/main.go`
/// describes its input and output.
pub fn kstatus() -> Result<PathBuf> {
    Ok(KSTATUS.folder()?.join("kstatus"))
}

/// A server of Git over SSH. It is built if it is missing. `parts/sshgit/main.go` describes its configuration and output.
pub fn sshgit() -> Result<PathBuf> {
    Ok(SSHGIT.folder()?.join("sshgit"))
}

/// The supervisor that [`crate::spawn_supervised`] uses. It is built if it is missing.
pub(crate) fn supervise() -> Result<PathBuf> {
    Ok(SUPERVISE.folder()?.join("supervise"))
}

fn from_assets(folder: PathBuf) -> Result<KubernetesParts> {
    for program in [ETCD, API_SERVER] {
        if !folder.join(program).is_file() {
            return Err(Error::Assets { folder, program });
        }
    }
    Ok(KubernetesParts { etcd: folder.join(ETCD), kube_apiserver: folder.join(API_SERVER), assets: Some(folder) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for program in [ETCD, API_SERVER, CONTROLLER_MANAGER] {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        let parts = from_assets(folder.path().into()).unwrap();
        assert_eq!(parts.etcd, folder.path().join("etcd"));
        assert_eq!(parts.kube_apiserver, folder.path().join("kube-apiserver"));
        assert_eq!(parts.kube_controller_manager().unwrap(), folder.path().join("kube-controller-manager"));
    }

    #[test]
    fn incomplete_assets_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(ETCD), "").unwrap();
        let error = from_assets(folder.path().into()).unwrap_err().to_string();
        assert!(error.contains("has no kube-apiserver"), "{error}");
    }
}
