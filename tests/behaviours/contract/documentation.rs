//! Checks that docs/compatibility.md names a test in every row, and that these tests exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// All Rust files of the repository, without the target folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether the file contains this module, judged by its path without `src`.
fn is_module(file: &Path, module: &[&str]) -> bool {
    let file = file.with_extension("");
    let mut parts: Vec<_> = file.iter().filter_map(|part| part.to_str()).filter(|part| *part != "src").collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    parts.ends_with(module)
}

#[test]
fn every_test_of_the_compatibility_table_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests have a parent folder")?;
    let page = fs::read_to_string(root.join("docs/compatibility.md"))?;
    let mut files = Vec::new();
    sources(root, &mut files)?;
    let mut checked = 0;
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("| ---") && !line.starts_with("| row |");
    for row in page.lines().filter(is_row) {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let is_shown = shown_by.contains("::") || shown_by.contains("tests/bench/");
        assert!(is_shown || row.contains("✘ not yet"), "no test shows: {row}");
        for name in row.split('`').skip(1).step_by(2).filter(|code| code.contains("::")) {
            let mut module: Vec<&str> = name.split("::").collect();
            let test = module.pop().context("a name has parts")?;
            let declaration = format!("fn {test}()");
            let exists = files
                .iter()
                .filter(|file| is_module(file, &module))
                .any(|file| fs::read_to_string(file).is_ok_and(|source| source.contains(&declaration)));
            assert!(exists, "there is no test {name}, in: {row}");
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} tests are named");
    Ok(())
}
