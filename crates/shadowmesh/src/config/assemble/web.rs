//! `[web]`

use super::{Reader, place, section};
use crate::config::layers::{Fields, Layers};
use crate::config::origin::Problem;
use crate::config::web::{Certificate, ProxyChoice, WebConfig};
use crate::config::{schema, value};

impl Reader<'_> {
    pub(super) fn web(&mut self, layers: &Layers) -> WebConfig {
        let all = &schema::WEB;
        let fields = section(layers, all);
        let listen = self.list(all, &fields, "listen", value::socket_address);
        if let Some(setting) = fields.get("listen") {
            self.no_duplicates("web.listen", setting, &listen);
        }
        WebConfig {
            listen,
            certificate: self.web_certificate(&fields),
            proxy: self
                .one(all, &fields, "proxy", value::web_proxy)
                .unwrap_or(ProxyChoice::Environment),
            usage: self
                .one(all, &fields, "use", value::web_use)
                .unwrap_or_default(),
        }
    }

    fn web_certificate(&mut self, fields: &Fields) -> Option<Certificate> {
        let [chain, key] = ["certificate", "key"].map(|name| {
            let item = fields.get(name)?.items.first()?;
            (!item.text.is_empty()).then(|| (item.origin.clone(), item.path()))
        });
        let mut alone = |origin, written, missing| {
            let what = format!("`web.{written}` without `web.{missing}`");
            let note = format!("expected {}", place(&schema::WEB, missing).key.expects);
            self.problems.push(Problem::new(&origin, what).note(note));
            None
        };
        match (chain, key) {
            (None, None) => None,
            (Some((_, chain)), Some((_, key))) => Some(Certificate { chain, key }),
            (Some((origin, _)), None) => alone(origin, "certificate", "key"),
            (None, Some((origin, _))) => alone(origin, "key", "certificate"),
        }
    }
}
