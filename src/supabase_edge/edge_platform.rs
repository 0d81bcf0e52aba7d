//! A request from a client: its user object in this isolate, no shared cache, no dataset for figures.

use std::future::ready;

use futures_util::future::LocalBoxFuture;
use uuid::Uuid;
use wasm_bindgen::JsValue;

use super::isolate::now_ms;
use super::{background, objects};
use crate::config::Platform;
use crate::http::problem::ProblemContext;
use crate::points::Point;
use crate::user_object::command::Command;
use crate::web::edge_host::{EdgePlatform, Execution};
use crate::web::settings::{Settings, settings};

pub(super) struct FunctionRequest {
    environment: JsValue,
    settings: Settings,
}

impl FunctionRequest {
    pub(super) fn new(environment: JsValue) -> Self {
        let settings = settings(Platform::SupabaseEdge, &environment);
        Self { environment, settings }
    }
}

impl EdgePlatform for FunctionRequest {
    fn environment(&self) -> &JsValue {
        &self.environment
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn after_response(&self, task: LocalBoxFuture<'static, ()>) {
        background::spawn(task);
    }

    fn execute<'a>(
        &'a self,
        command: &'a Command,
        context: &'a ProblemContext,
    ) -> LocalBoxFuture<'a, Execution> {
        Box::pin(objects::execute(&self.settings, command, context))
    }

    fn wake_up(&self, user_id: Uuid) {
        objects::wake_up(&self.settings, user_id);
    }

    fn cached<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Option<Vec<u8>>> {
        Box::pin(ready(None))
    }

    fn cache<'a>(&'a self, _: &'a str, _: &'a [u8], _: u64) -> LocalBoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn measure(&self, _: &Point<'_>) {}
}
