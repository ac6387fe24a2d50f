//! Writes the CustomResourceDefinitions to `crds/yaml/`.

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    fs::create_dir_all(&folder)?;
    for crd in crds::custom_resource_definitions() {
        fs::write(folder.join(crds::file_name(&crd)), crds::file_text(&crd))?;
    }
    Ok(())
}
