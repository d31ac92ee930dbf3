"""`slipway serve`: a model behind an API, and a page to chat on."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import ClusterName, open_place
from launcher.commands.output import remark, say_now
from launcher.commands.talk import BaseModel, FetchLine, ProductName, What

if TYPE_CHECKING:
    from artifacts.contract import Source
    from launcher.serving.servers import Served


def serve(
    what: What,
    product: ProductName = None,
    base_model: BaseModel = None,
    cluster: ClusterName = "local",
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0: every machine that reaches this one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="auto, transformers, llama.cpp (GGUF), vllm (on a GPU, if installed).",
        ),
    ] = "auto",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The chat page beside the API.")] = True,
) -> None:
    """Serve a model: an OpenAI-compatible API, and a page to chat on.

    Answers come from tokens as training saw them, whatever form the model has. One question is answered at a
    time (with vLLM: many); others wait in a queue. ^C ends it.

    With SLIPWAY_API_KEY in the environment, API and page ask for that key.

    Examples:

      slipway serve support-bot --open

      slipway serve ./my-model --port 8080

      slipway serve support-bot --product gguf
    """
    import shutil
    import webbrowser

    from launcher import machine
    from launcher.serving.engines import choose_engine
    from launcher.serving.servers import API_KEY, LOOPBACK, Servers

    source = _find(what, cluster, product, base_model)
    chosen = choose_engine(
        engine, source, gpus=machine.detect().gpus, has_vllm=shutil.which("vllm") is not None
    )
    protected = bool(os.environ.get(API_KEY))
    if host not in LOOPBACK and not protected:
        remark(f"note: whoever reaches {host}:{port} may ask; {API_KEY} in the environment sets a key")
    remark(f"loading {source.name} with {chosen} ...")
    with Servers() as servers:
        try:
            served = servers.start(chosen, source, host=host, port=port, page=page)
            say_now(told(served, protected=protected))
            if open_browser and served.page:
                webbrowser.open(served.page)
            servers.wait()
        except KeyboardInterrupt:  # how it is ended
            remark("")


def _find(what: str, cluster: str, product: str | None, base_model: str | None) -> Source:
    """Raises UserError, ClusterError."""
    from launcher import models

    fetching = FetchLine()
    try:
        return models.find(
            what,
            lambda: open_place(cluster).store,
            product=product,
            base_model=base_model,
            fetching=fetching.show,
        )
    finally:
        fetching.end()


def told(served: Served, *, protected: bool) -> str:
    """What a person needs to use it: addresses, and a call in two languages."""
    key = ' -H "Authorization: Bearer $SLIPWAY_API_KEY"' if protected else ""
    client_key = 'os.environ["SLIPWAY_API_KEY"]' if protected else '"none"'
    model = json.dumps(served.model)
    body = f'{{"model": {model}, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    lines = [
        f"{served.model}  ({served.details})",
        "",
        *([f"  page  {served.page}"] if served.page else []),
        f"  API   {served.api}",
        "",
        f"  curl {served.api}/chat/completions -H 'Content-Type: application/json'{key} \\",
        f"    -d {shlex.quote(body)}",
        "",
        f"  import openai{', os' if protected else ''}",
        f'  client = openai.OpenAI(base_url="{served.api}", api_key={client_key})',
        '  messages = [{"role": "user", "content": "Hello"}]',
        f"  answer = client.chat.completions.create(model={model}, messages=messages)",
        "  print(answer.choices[0].message.content)",
        "",
        "^C ends it",
    ]
    return "\n".join(lines)
