"""python others.py BASE_URL: what LangChain's and LiteLLM's clients make of a gateway, as one JSON object.

Runs in `.venv-clients`, whose packages do not go together with the gateway's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM would fetch prices

Way = Callable[[str], tuple[str, str]]


def langchain(url: str) -> dict[str, Way]:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    chat = ChatOpenAI(model="m", base_url=url, api_key="none", max_retries=0, use_responses_api=False)
    newer = ChatOpenAI(model="m", base_url=url, api_key="none", max_retries=0, use_responses_api=True)
    vectors = OpenAIEmbeddings(model="m", base_url=url, api_key="none", max_retries=0, check_embedding_ctx_length=False)

    def whole(text: str) -> tuple[str, str]:
        reply = chat.invoke(text)
        return reply.response_metadata["finish_reason"], str(reply.content)

    def streamed(text: str) -> tuple[str, str]:
        content, finish = "", ""
        for piece in chat.stream(text):
            content += str(piece.content)
            finish = piece.response_metadata.get("finish_reason") or finish
        return finish, content

    def response(text: str) -> tuple[str, str]:
        reply = newer.invoke(text)
        details = reply.response_metadata.get("incomplete_details") or {}
        return details.get("reason") or reply.response_metadata["status"], str(reply.text) or str(reply.content)

    def embed(text: str) -> tuple[str, str]:
        return "stop", str(len(vectors.embed_query(text)))

    return {"chat": whole, "chat, streamed": streamed, "responses": response, "embeddings": embed}


def litellm(url: str) -> dict[str, Way]:
    import litellm

    litellm.telemetry = False
    options: dict[str, Any] = {"model": "openai/m", "api_base": url, "api_key": "none", "num_retries": 0}

    def whole(text: str) -> tuple[str, str]:
        reply = litellm.completion(messages=[{"role": "user", "content": text}], **options)
        return reply.choices[0].finish_reason, reply.choices[0].message.content

    def streamed(text: str) -> tuple[str, str]:
        content, finish = "", ""
        for piece in litellm.completion(messages=[{"role": "user", "content": text}], stream=True, **options):
            content += piece.choices[0].delta.content or ""
            finish = piece.choices[0].finish_reason or finish
        return finish, content

    def embed(text: str) -> tuple[str, str]:
        return "stop", str(len(litellm.embedding(input=[text], **options).data[0]["embedding"]))

    return {"chat": whole, "chat, streamed": streamed, "embeddings": embed}


def main() -> None:
    url = sys.argv[1]
    found: dict[str, Any] = {}
    for client, ways in (("langchain-openai", langchain(url)), ("litellm", litellm(url))):
        for name, way in ways.items():
            for text in ("Hello", "MARK-HARM"):
                try:
                    result = list(way(text))
                except Exception as error:  # noqa: BLE001  what it raises is what is asked for
                    result = [type(error).__name__, str(error)]
                found.setdefault(client, {}).setdefault(name, {})[text] = result
    print(json.dumps(found))


if __name__ == "__main__":
    main()
