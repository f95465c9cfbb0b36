"""The pipeline, by the grammar of Logstash and the options that its plugins have."""

import re
import sys
from pathlib import Path

import pytest
from clone import ROOT

if sys.version_info >= (3, 14):
    pytest.skip("the grammar of pipelines is for older Pythons", allow_module_level=True)

from logstash_pipeline_parser import Pipeline

FILES = sorted((ROOT / "logstash/server/pipeline").glob("*.conf"))

# The options used here and what each takes, by the source of the versions that come with Logstash
# 9.5.2 (Gemfile.jruby-3.4.lock.release there), each in github.com/logstash-plugins. All have `id`.
OPTIONS = {
    # logstash-input-tcp 7.0.12, lib/logstash/inputs/tcp.rb
    "input tcp": {
        "port": int,
        "ssl_enabled": bool,
        "ssl_certificate": Path,
        "ssl_key": Path,
        "ssl_client_authentication": {"none", "optional", "required"},
        "dns_reverse_lookup_enabled": bool,
        "ecs_compatibility": {"disabled", "v1", "v8"},
        "codec": "codec",
    },
    # logstash-codec-json_lines 3.2.2, lib/logstash/codecs/json_lines.rb
    "codec json_lines": {"decode_size_limit_bytes": int},
    # logstash-filter-mutate 3.6.0, lib/logstash/filters/mutate.rb; add_field and remove_field are
    # of all filters (logstash-core/lib/logstash/filters/base.rb)
    "filter mutate": {"copy": dict, "add_field": dict, "remove_field": list},
    # logstash-filter-fingerprint 3.5.0, lib/logstash/filters/fingerprint.rb
    "filter fingerprint": {
        "source": list,
        "target": str,
        "method": {"SHA1", "SHA256", "SHA384", "SHA512", "MD5", "MURMUR3", "MURMUR3_128", "UUID"},
        "concatenate_all_fields": bool,
    },
    # logstash-filter-ruby 3.1.8, lib/logstash/filters/ruby.rb
    "filter ruby": {"code": str},
    # logstash-filter-drop 3.0.5
    "filter drop": {},
    # logstash-filter-http 2.0.0, lib/logstash/filters/http.rb, and logstash-mixin-http_client 7.5.0
    "filter http": {
        "url": str,
        "verb": {"GET", "HEAD", "PATCH", "DELETE", "POST", "PUT"},
        "body_format": {"text", "json"},
        "body": dict,
        "target_body": str,
        "user": str,
        "password": str,
        "ssl_certificate_authorities": list,
        "tag_on_request_failure": list,
    },
    # logstash-output-elasticsearch 12.1.6, lib/logstash/plugin_mixins/elasticsearch/api_configs.rb
    # and lib/logstash/outputs/elasticsearch/data_stream_support.rb, which allows these together
    "output elasticsearch": {
        "hosts": list,
        "user": str,
        "password": str,
        "ssl_certificate_authorities": list,
        "data_stream": bool,
        "data_stream_type": {"logs", "metrics", "synthetics", "traces"},
        "data_stream_dataset": str,
        "data_stream_namespace": str,
        "data_stream_auto_routing": bool,
        "document_id": str,
        "silence_errors_in_log": list,
        "retry_max_interval": int,
    },
}


def plugins(kind, nodes):
    """Each plugin with its options, also those in conditions."""
    for name, content in nodes:
        if name in ("if", "else if", "else"):
            yield from plugins(kind, content if name == "else" else content[-1][0])
        else:
            yield f"{kind} {name}", {option: values[0] for option, values in content}


PLUGINS = [
    plugin
    for file in FILES
    for kind, nodes in Pipeline(file.read_text()).parse()
    for plugin in plugins(kind, nodes)
]


def found(kind):
    return [options for name, options in PLUGINS if name == kind]


def test_a_file_for_each_part():
    kinds = [[kind for kind, _ in Pipeline(file.read_text()).parse()] for file in FILES]
    assert kinds == [["input"], ["filter"], ["output"]]


def test_every_plugin_is_told_apart_in_the_metrics():
    ids = [options["id"] for _, options in PLUGINS]
    assert len(PLUGINS) >= 10
    assert len({*ids}) == len(ids)


@pytest.mark.parametrize(("name", "options"), PLUGINS, ids=[o["id"] for _, o in PLUGINS])
def test_every_option_is_one_that_the_plugin_has(name, options):
    for option, given in options.items():
        if option != "id":
            assert fits(given, OPTIONS[name][option]), f"{name}: {option} => {given}"


def fits(given, kind):
    if kind == "codec":
        name, options = given
        return all(fits(values[0], OPTIONS[f"codec {name}"][o]) for o, values in options)
    if isinstance(kind, set):
        return given in kind
    if kind is dict:
        return isinstance(given, list)
    # bool is an int too
    return isinstance(given, kind) and (kind is bool or not isinstance(given, bool))


def test_elasticsearch_is_asked_in_one_way_with_a_secret_from_outside():
    (output,), (look_up,) = found("output elasticsearch"), found("filter http")
    assert output["hosts"] == ["https://elasticsearch:9200"]
    assert look_up["url"].startswith("https://elasticsearch:9200/")
    for options in (output, look_up):
        assert options["user"] == "logstash_writer"
        assert options["password"] == "${LOGSTASH_PASSWORD}"
        assert options["ssl_certificate_authorities"] == ["/run/secrets/logging_ca"]
    assert not re.search("ssl_verification_mode", "".join(f.read_text() for f in FILES))


def test_the_id_by_which_a_line_is_known_is_the_one_that_is_looked_up():
    (output,), (look_up,) = found("output elasticsearch"), found("filter http")
    assert output["document_id"] == "%{[@metadata][id]}"
    assert output["document_id"] in str(look_up["body"])
    targets = {options["target"] for options in found("filter fingerprint")}
    assert targets == {"[@metadata][id]"}


def test_the_look_up_is_in_the_data_stream_that_is_written():
    (output,), (look_up,) = found("output elasticsearch"), found("filter http")
    parts = (output[f"data_stream_{part}"] for part in ("type", "dataset", "namespace"))
    assert look_up["url"].split("/")[3] == "-".join(parts)
