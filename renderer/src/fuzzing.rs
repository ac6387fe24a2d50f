//! Renders with a process that sends given frames, whatever it is sent. Only for the fuzz target `frames`.

use std::io;

use crate::{
    Chart, Kustomization, Limits, Object, RenderedChart, RenderedKustomization, Repository, Request, check::Answer,
    converse,
};

/// What is believed of `frames` when the folder `path` is rendered by Kustomize; `None` if it is refused.
pub fn kustomize<R: Repository>(frames: &[u8], path: &str, repository: &R, limits: &Limits) -> Option<Vec<Object>> {
    let request = Request::Kustomize(Kustomization { path, overlay: None });
    believed::<RenderedKustomization, R>(frames, &request, repository, limits).map(|rendered| rendered.objects)
}

/// What is believed of `frames` when `chart` is rendered; `None` if it is refused.
pub fn helm<R: Repository>(frames: &[u8], chart: &Chart, repository: &R, limits: &Limits) -> Option<RenderedChart> {
    believed(frames, &Request::Helm(chart), repository, limits)
}

fn believed<A: Answer, R: Repository>(
    mut frames: &[u8],
    request: &Request<'_>,
    repository: &R,
    limits: &Limits,
) -> Option<A> {
    converse(&mut io::sink(), &mut frames, request, repository, limits).ok()?.ok()
}
