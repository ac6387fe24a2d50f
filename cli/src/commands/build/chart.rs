//! Charts, as `helm template` renders them.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context;
use manifests::{Manifest, in_one_line};
use pipeline::render::Unlimited;
use renderer::{BuiltRelease, Capabilities, Chart, Release, ReleaseValues, RenderedChart, SealedValues, Values};
use worker::Cancel;

use crate::{
    chart_inputs::capabilities,
    copies::{Copies, WithCopies},
    folder,
    global::Global,
    output::{self, Hint},
    working_copy::WorkingCopy,
};

/// How a chart is rendered.
#[derive(clap::Args)]
#[command(next_help_heading = "Options for charts")]
pub(super) struct ChartArgs {
    /// File with values, or `-` for standard input; later files win over earlier ones
    #[arg(short = 'f', long, value_name = "FILE")]
    values: Vec<PathBuf>,

    /// Value, for example `image.tag=1.2`; wins over values from files
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Value that is always a string; wins over --set
    #[arg(long, value_name = "KEY=VALUE")]
    set_string: Vec<String>,

    /// Value as JSON; --set wins over it
    #[arg(long, value_name = "KEY=JSON")]
    set_json: Vec<String>,

    /// Sealed value from a SealedSecret of the repository, for example `auth.password=secrets/db.yaml:password`.
    /// Without :KEY, each key of the SealedSecret becomes a value under NAME: NAME.key
    #[arg(long, value_name = "NAME=FILE[:KEY]")]
    set_sealed: Vec<String>,

    /// Name of the release [default: release-name]
    #[arg(long, value_name = "NAME")]
    release_name: Option<String>,

    /// Kubernetes version that templates see [default: the version that Helm was built for]
    #[arg(long, value_name = "VERSION")]
    kube_version: Option<String>,

    /// Further API version that templates see as available, for example `cert-manager.io/v1`
    #[arg(short, long, value_name = "VERSION", value_delimiter = ',')]
    api_versions: Vec<String>,

    /// Also print the objects in crds/
    #[arg(long)]
    include_crds: bool,

    /// Render as for an upgrade, not as for an installation
    #[arg(long)]
    is_upgrade: bool,
}

impl ChartArgs {
    /// Each flag, and whether it is given.
    fn given(&self) -> [(&'static str, bool); 10] {
        [
            ("--values", !self.values.is_empty()),
            ("--set", !self.set.is_empty()),
            ("--set-string", !self.set_string.is_empty()),
            ("--set-json", !self.set_json.is_empty()),
            ("--set-sealed", !self.set_sealed.is_empty()),
            ("--release-name", self.release_name.is_some()),
            ("--kube-version", self.kube_version.is_some()),
            ("--api-versions", !self.api_versions.is_empty()),
            ("--include-crds", self.include_crds),
            ("--is-upgrade", self.is_upgrade),
        ]
    }

    /// Fails if one of these flags is given, because the folder is not a chart.
    pub(super) fn refuse_without_chart(&self, path: &Path) -> anyhow::Result<()> {
        match self.given().into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(Hint::wrong_usage(
                format!("{flag} is only for charts, and {} is not a chart", path.display()),
                "name a folder with a Chart.yaml and no kustomization.yaml",
            )),
        }
    }

    /// Fails if the command line has both `--sync` and values, because the Sync has its own values.
    pub(super) fn refuse_values_beside_sync(&self) -> anyhow::Result<()> {
        let given = self.given().into_iter().filter(|(flag, _)| !matches!(*flag, "--kube-version" | "--api-versions"));
        match { given }.find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(Hint::wrong_usage(
                format!("{flag} cannot be used with --sync: the Sync says how its chart is rendered"),
                "change spec.helm in the file of the Sync",
            )),
        }
    }

    /// What the templates of the chart of a Sync see.
    pub(super) fn capabilities(&self) -> Capabilities {
        capabilities(self.kube_version.as_deref(), &self.api_versions)
    }

    /// All given values, in Helm's order: later ones win.
    fn all_values(&self, root: &Path) -> anyhow::Result<Vec<ReleaseValues>> {
        let files: anyhow::Result<Vec<_>> = self.values.iter().map(|path| file(path, root)).collect();
        let mut all = files?;
        all.extend(self.set_json.iter().cloned().map(Values::SetJson));
        all.extend(self.set.iter().cloned().map(Values::Set));
        all.extend(self.set_string.iter().cloned().map(Values::SetString));
        let mut all: Vec<_> = all.into_iter().map(ReleaseValues::Plain).collect();
        for text in &self.set_sealed {
            all.push(ReleaseValues::Sealed(sealed(text, root)?));
        }
        Ok(all)
    }
}

/// For a file in the repository, returns only its path: the file is read later, in the same way as all other files of
/// the repository. Any other file is read here, because it belongs to the user.
fn file(path: &Path, root: &Path) -> anyhow::Result<Values> {
    let cannot_read = || format!("cannot read the values in {}", path.display());
    if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read the values on standard input")?;
        return Ok(Values::Yaml { name: "standard input".to_owned(), text });
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder).with_context(cannot_read)?;
    let inside = path.file_name().map(|name| folder.join(name));
    let inside = inside.as_deref().and_then(|path| path.strip_prefix(root).ok()).and_then(Path::to_str);
    if let Some(inside) = inside {
        return Ok(Values::File(inside.to_owned()));
    }
    let text = fs::read_to_string(path).with_context(cannot_read)?;
    Ok(Values::Yaml { name: path.display().to_string(), text })
}

/// The sealed values that `NAME=FILE[:KEY]` names.
fn sealed(text: &str, root: &Path) -> anyhow::Result<SealedValues> {
    let wrong = |what: &str| {
        Hint::wrong_usage(
            format!("--set-sealed {text}: {what}"),
            "for example --set-sealed auth.password=secrets/db.yaml:password",
        )
    };
    let (path, file) =
        text.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or_else(|| wrong("it is not NAME=FILE"))?;
    let (file, key) = match file.rsplit_once(':') {
        Some((file, key)) => (file, Some(key.to_owned())),
        None => (file, None),
    };
    let found = fs::canonicalize(file).map_err(|error| wrong(&format!("cannot read {file}: {error}")))?;
    let inside = found.strip_prefix(root).ok().and_then(Path::to_str);
    let file = inside.ok_or_else(|| wrong("the file is not in the repository of the chart"))?.to_owned();
    Ok(SealedValues { file, content: None, key, path: Some(path.to_owned()) })
}

/// Whether there is a chart: a folder with a Chart.yaml, or an archive.
pub(super) fn is_chart(path: &Path) -> bool {
    path.join("Chart.yaml").is_file() || path.is_file() && path.extension().is_some_and(|end| end == "tgz")
}

/// Renders the chart. Returns the objects, and the text that `helm template` would print.
pub(super) fn render(
    path: &Path,
    args: &ChartArgs,
    copies: &Copies,
    global: &Global,
) -> anyhow::Result<(Vec<Manifest>, String)> {
    let (root, inside) = folder::place(path)?;
    let (root, inside) = match inside.as_str() {
        // The chart is an archive outside of any repository.
        "" if root.is_file() => (
            root.parent().unwrap_or(&root).to_owned(),
            root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        ),
        _ => (root, inside),
    };
    let chart = Chart {
        path: inside,
        release_name: args.release_name.clone().unwrap_or_else(|| "release-name".to_owned()),
        namespace: global.namespace().unwrap_or_else(|| "default".to_owned()),
        kube_version: args.kube_version.clone(),
        api_versions: args.api_versions.clone(),
        only_api_versions: false,
        values: Vec::new(),
        include_crds: args.include_crds,
        is_upgrade: args.is_upgrade,
        lookup: None,
    };
    let release = Release { chart, values: args.all_values(&root)?, ..Release::default() };
    let copy = WorkingCopy { root };
    let files = WithCopies::new(&copy, copies);
    let built = folder::renderer().release(&release, &files, &mut Unlimited, &Cancel::new());
    let built = built.map_err(|error| folder::explained(files.explained(error), &copy));
    let BuiltRelease { rendered, manifests, .. } =
        built.with_context(|| format!("cannot render {}", path.display()))?;
    warn(&rendered);
    Ok((manifests.into_iter().flatten().collect(), rendered.text()))
}

fn warn(rendered: &RenderedChart) {
    for warning in &rendered.warnings {
        output::warn(format_args!("Helm says: {}", in_one_line(warning)));
    }
    if let [first, others @ ..] = rendered.lookups.as_slice() {
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        let name = [first.namespace.as_str(), &first.name].join("/");
        output::warn(format_args!(
            "templates look up {}{more} in the cluster; they find nothing, as with `helm template`",
            in_one_line(&format!("{} {} {}", first.api_version, first.kind, name.trim_matches('/')))
        ));
    }
    if !rendered.nondeterministic.is_empty() {
        output::warn(format_args!(
            "the chart renders to something different each time: its templates call {}",
            in_one_line(&rendered.nondeterministic.join(", "))
        ));
    }
}
