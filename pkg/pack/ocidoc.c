/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/ocidoc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "artifact/doc.h"
#include "artifact/fail.h"
#include "base/cleanup.h"
#include "conf/json.h"

#define TYPE_INDEX    "application/vnd.oci.image.index.v1+json"
#define TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define TYPE_CONFIG   "application/vnd.oci.image.config.v1+json"
#define TYPE_LAYER    "application/vnd.oci.image.layer.v1.tar+zstd"
#define PREFIX        "sha256:"

#if defined(__x86_64__)
#define ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
#else
#error "name this architecture as Go's runtime.GOARCH does"
#endif

/* "sha256:" and the digits. */
struct reference {
	char text[sizeof(PREFIX) + DIGEST_HEX_MAX];
};

static const char *refer(const struct digest *d, struct reference *r)
{
	char hex[DIGEST_HEX_MAX];

	(void)snprintf(r->text, sizeof(r->text), PREFIX "%s", digest_hex(d, hex));
	return r->text;
}

const char *ocidoc_blob_name(const struct digest *d, char *ret)
{
	char hex[DIGEST_HEX_MAX];

	(void)snprintf(ret, OCIDOC_NAME_MAX, OCIDOC_BLOBS "%s", digest_hex(d, hex));
	return ret;
}

/* -- writing --------------------------------------------------------------------------------- */

/* json_pack() gives NULL for want of memory only: all texts were checked to be UTF-8 when read. */
static int write_doc(json_t *doc, struct buf *out, struct error *err)
{
	int r = doc ? json_doc_write(doc, JSON_DOC_COMPACT, out) : -ENOMEM;

	json_decref(doc);
	return r < 0 ? fail_sys(err, r, "write a document of the archive") : 0;
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static const char *container_name(const struct metadata *m)
{
	return m->container.name ? m->container.name : m->container.id;
}

static json_t *descriptor(const char *type, const struct ocidoc_blob *b)
{
	struct reference r;

	return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", refer(&b->digest, &r),
			 "size", (json_int_t)b->size);
}

static json_t *annotations(const struct metadata *m)
{
	const struct {
		const char *key, *value;
	} all[] = {
		{ "org.criu.checkpoint.container.name", container_name(m) },
		{ "org.criu.checkpoint.engine.name", "containerd" },
		{ "org.criu.checkpoint.pod.name", m->pod.name },
		{ "org.criu.checkpoint.pod.namespace", m->pod.namespace },
		{ "org.criu.checkpoint.pod.uid", m->pod.uid },
		{ "org.criu.checkpoint.pod.id", m->pod.sandbox_id },
		{ "org.criu.checkpoint.rootfsImageName", m->container.image },
		{ "org.criu.checkpoint.rootfsImageUserRequested", m->container.image },
		{ "org.criu.checkpoint.rootfsImageID", m->container.image_digest },
		{ "org.criu.checkpoint.runtime.name", m->container.runtime },
		{ "org.criu.checkpoint.criu.version", m->criu_version },
		{ "org.criu.checkpoint.host.arch", ARCHITECTURE },
		{ "org.opencontainers.image.created", m->created_at },
		{ "io.kybernate.checkpoint.ref", m->ref },
	};
	json_t *to = json_object();

	for (size_t i = 0; to && i < ARRAY_SIZE(all); i++)
		if (all[i].value &&
		    json_object_set_new(to, all[i].key, json_string(all[i].value)) < 0) {
			json_decref(to);
			return NULL;
		}
	return to;
}

int ocidoc_write_layout(struct buf *out, struct error *err)
{
	return write_doc(json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), out, err);
}

int ocidoc_write_index(const struct metadata *m, const struct ocidoc_blob *manifest,
		       struct buf *out, struct error *err)
{
	json_t *d = descriptor(TYPE_MANIFEST, manifest);
	json_t *a = json_pack("{s:s}", "org.opencontainers.image.ref.name", m->ref);
	json_t *p = json_pack("{s:s, s:s}", "architecture", ARCHITECTURE, "os", "linux");

	if (!d || json_object_set_new(d, "platform", p) < 0 ||
	    json_object_set_new(d, "annotations", a) < 0) {
		json_decref(d);
		return fail_sys(err, -ENOMEM, "write a document of the archive");
	}
	return write_doc(json_pack("{s:i, s:s, s:[o]}", "schemaVersion", 2, "mediaType", TYPE_INDEX,
				   "manifests", d), out, err);
}

int ocidoc_write_manifest(const struct metadata *m, const struct ocidoc_blob *config,
			  const struct ocidoc_blob *layer, struct buf *out, struct error *err)
{
	return write_doc(json_pack("{s:i, s:s, s:o, s:[o], s:o}", "schemaVersion", 2, "mediaType",
				   TYPE_MANIFEST, "config", descriptor(TYPE_CONFIG, config),
				   "layers", descriptor(TYPE_LAYER, layer), "annotations",
				   annotations(m)),
			 out, err);
}

int ocidoc_write_config(const struct metadata *m, const struct digest *diff, struct buf *out,
			struct error *err)
{
	struct reference r;

	return write_doc(json_pack("{s:s, s:s, s:s, s:{}, s:{s:s, s:[s]}}", "created",
				   m->created_at, "architecture", ARCHITECTURE, "os", "linux",
				   "config", "rootfs", "type", "layers", "diff_ids",
				   refer(diff, &r)),
			 out, err);
}

int ocidoc_write_config_dump(const struct metadata *m, struct buf *out, struct error *err)
{
	const struct metadata_container *c = &m->container;

	/* The creation of the container is not known: of the times, this is one that is. */
	return write_doc(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "id", c->id,
				   "name", container_name(m), "rootfsImage", or_empty(c->image),
				   "rootfsImageRef", or_empty(c->image_digest), "rootfsImageName",
				   or_empty(c->image), "runtime", or_empty(c->runtime_type),
				   "createdTime", m->created_at, "checkpointedTime", m->created_at,
				   "restored", 0), out, err);
}

int ocidoc_write_status_dump(const struct metadata *m, struct buf *out, struct error *err)
{
	const struct metadata_container *c = &m->container;

	return write_doc(json_pack("{s:s, s:{s:s}, s:{s:s}, s:s, s:{}, s:{}}", "id", c->id,
				   "metadata", "name", container_name(m), "image", "image",
				   or_empty(c->image), "image_ref", or_empty(c->image_digest),
				   "annotations", "labels"),
			 out, err);
}

/* -- reading --------------------------------------------------------------------------------- */

static int read_doc(const char *what, struct bytes text, json_t **ret, struct error *err)
{
	int r = json_doc_parse(text, ret, err);

	if (r == -ENOMEM)
		return fail_sys(err, r, "read %s", what);
	if (r < 0)
		return fail_corrupt(err, "%s: is no JSON", what);
	return 0;
}

static bool is_text(const json_t *value, const char *text)
{
	const char *is;

	return json_doc_string(value, &is) == 0 && strcmp(is, text) == 0;
}

static int read_digest(const json_t *value, struct digest *ret)
{
	const char *text;

	if (json_doc_string(value, &text) != 0 || strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return -EBADMSG;
	return digest_parse(text + strlen(PREFIX), ret);
}

static int read_descriptor(const char *what, const json_t *d, const char *type,
			   struct ocidoc_blob *ret, struct error *err)
{
	struct ocidoc_blob b;

	if (!is_text(JSON_DOC_AT(d, "mediaType"), type))
		return fail_corrupt(err, "%s: is not of the type %s", what, type);
	if (read_digest(JSON_DOC_AT(d, "digest"), &b.digest) < 0 ||
	    json_doc_uint(JSON_DOC_AT(d, "size"), DOC_NUMBER_MAX, &b.size) != 0)
		return fail_corrupt(err, "%s: has no digest or no size", what);
	*ret = b;
	return 0;
}

/* The element of an array that has no other. */
static const json_t *only(const json_t *array)
{
	return json_is_array(array) && json_array_size(array) == 1 ? json_array_get(array, 0)
								   : NULL;
}

int ocidoc_read_layout(struct bytes text, struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = read_doc(OCIDOC_LAYOUT, text, &doc, err);

	if (r == 0 && !is_text(JSON_DOC_AT(doc, "imageLayoutVersion"), "1.0.0"))
		r = fail_corrupt(err, OCIDOC_LAYOUT ": is of a version that is not known");
	return r;
}

int ocidoc_read_index(struct bytes text, struct ocidoc_blob *ret_manifest, struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = read_doc(OCIDOC_INDEX, text, &doc, err);
	const json_t *d = only(JSON_DOC_AT(doc, "manifests"));

	if (r == 0 && !d)
		r = fail_corrupt(err, OCIDOC_INDEX ": does not name one manifest");
	return r < 0 ? r
		     : read_descriptor("the image's manifest", d, TYPE_MANIFEST, ret_manifest, err);
}

int ocidoc_read_manifest(struct bytes text, struct ocidoc_blob *ret_config,
			 struct ocidoc_blob *ret_layer, struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	struct ocidoc_blob config;
	int r = read_doc("the image's manifest", text, &doc, err);
	const json_t *layer = only(JSON_DOC_AT(doc, "layers"));

	if (r == 0 && !layer)
		r = fail_corrupt(err, "the image's manifest: does not name one layer");
	if (r == 0)
		r = read_descriptor("the image's configuration", JSON_DOC_AT(doc, "config"),
				    TYPE_CONFIG, &config, err);
	if (r == 0)
		r = read_descriptor("the image's layer", layer, TYPE_LAYER, ret_layer, err);
	if (r == 0)
		*ret_config = config;
	return r;
}

int ocidoc_read_config(struct bytes text, struct digest *ret_diff, struct error *err)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = read_doc("the image's configuration", text, &doc, err);

	if (r == 0 && read_digest(only(JSON_DOC_AT(doc, "rootfs", "diff_ids")), ret_diff) < 0)
		r = fail_corrupt(err, "the image's configuration: does not name one layer");
	return r;
}
