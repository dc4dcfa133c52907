use crate::EpochScores;
use crate::charts::escape;
use crate::html::{curves, put};

/// The state of a running training, for a page that follows it.
#[derive(Clone, Debug, Default)]
pub struct LivePage {
    /// Title of the page.
    pub title: String,
    /// Number of optimizer updates so far.
    pub step: usize,
    /// Number of optimizer updates of the whole training.
    pub total_steps: usize,
    /// Loss of the last update.
    pub loss: f64,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// The validations so far.
    pub epochs: Vec<EpochScores>,
}

impl LivePage {
    /// Renders one page without scripts or external resources. The browser reloads it every three seconds.
    pub fn to_html(&self) -> String {
        let Self { title, step, total_steps, loss, learning_rate, epochs } = self;
        let style = include_str!("page.css");
        let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push_str("<meta http-equiv=\"refresh\" content=\"3\">\n");
        put(
            &mut page,
            format_args!("<title>{step} of {total_steps} · Kiln</title>\n<style>\n{style}</style>\n</head>\n"),
        );
        put(&mut page, format_args!("<body>\n<h1>{}</h1>\n", escape(title)));
        put(
            &mut page,
            format_args!("<p><progress max=\"{}\" value=\"{step}\"></progress></p>\n", (*total_steps).max(1)),
        );
        page.push_str("<ul class=\"cards\">\n");
        put(&mut page, format_args!("<li><strong>{step} of {total_steps}</strong>updates</li>\n"));
        put(&mut page, format_args!("<li><strong>{loss:.4}</strong>loss of the last update</li>\n"));
        put(&mut page, format_args!("<li><strong>{learning_rate:.2e}</strong>learning rate</li>\n"));
        for (name, score) in epochs.last().iter().flat_map(|epoch| &epoch.validation) {
            put(
                &mut page,
                format_args!("<li><strong>{score:.4}</strong>validation {}</li>\n", escape(&name.replace('_', " "))),
            );
        }
        page.push_str("</ul>\n");
        curves(&mut page, epochs);
        page.push_str("</body>\n</html>\n");
        page
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_page_shows_what_there_is_so_far() {
        let mut live = LivePage { title: "<b>".to_owned(), total_steps: 100, ..LivePage::default() };
        let page = live.to_html();
        assert!(page.contains("&lt;b&gt;") && page.contains("0 of 100") && !page.contains("<svg"), "{page}");
        let validation = BTreeMap::from([("loss".to_owned(), 0.5), ("macro_f1".to_owned(), 0.75)]);
        live.epochs.push(EpochScores {
            epoch: 1.0,
            train_loss: 0.6,
            learning_rate: 1e-5,
            gradient_norm: 1.0,
            validation,
        });
        live.step = 40;
        let page = live.to_html();
        assert!(page.contains("value=\"40\"") && page.contains("<strong>0.7500</strong>validation macro f1"), "{page}");
        assert_eq!(page.matches("<svg").count(), 4, "loss, scores, rate and gradient norm");
    }
}
