/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The policy: which path memory takes, and why; what lies beyond a mask; what a device can be asked
 * for. What the paths do is in test_mapping.c, test_hybrid.c and others.
 */

#include "support/machine.h"

static struct dmacore_explanation explain(struct dmacore_device *device, uint64_t phys,
					  uint64_t size, uint32_t kind, uint32_t attributes)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };

	assert_ok(dmacore_device_explain(device, phys, size, kind, attributes, &explanation));
	assert_int_equal(explanation.reserved, 0);
	assert_int_equal(explanation.path == DMACORE_PATH_REFUSED, explanation.error != 0);
	return explanation;
}

/* That this is what is explained, and what a mapping call does. */
static void assert_decided(struct machine *machine, uint64_t phys, uint32_t path, uint32_t reasons,
			   int error)
{
	struct dmacore_explanation found =
		explain(machine->device, phys, 100, DMACORE_STREAMING, DMACORE_ATTR_NO_WARN);
	struct dmacore_mapping_info info;
	size_t count;
	dmacore_dma_t dma;

	assert_int_equal(found.path, path);
	assert_int_equal(found.reasons, reasons);
	assert_int_equal(found.error, error);
	if (error) {
		assert_fails(dmacore_map_phys(machine->device, phys, 100, DMACORE_TO_DEVICE,
					      DMACORE_ATTR_NO_WARN, &dma),
			     error);
		return;
	}
	assert_ok(dmacore_map_phys(machine->device, phys, 100, DMACORE_TO_DEVICE,
				   DMACORE_ATTR_NO_WARN, &dma));
	assert_ok(dmacore_device_list_mappings(machine->device, dma, dma, &info, 1, &count));
	if (count > 0) {
		assert_int_equal(info.path, path);
		assert_int_equal(info.kind, DMACORE_STREAMING);
		assert_int_equal(info.direction, DMACORE_TO_DEVICE);
		assert_int_equal(info.attributes, DMACORE_ATTR_NO_WARN);
		assert_int_equal(info.first, dma);
		assert_int_equal(info.last, dma + 99);
	} else {
		assert_int_equal(path, DMACORE_PATH_DIRECT);
		assert_int_equal(dma, phys);
	}
	assert_ok(
		dmacore_unmap(machine->device, dma, 100, DMACORE_TO_DEVICE, DMACORE_ATTR_NO_WARN));
}

static void explain__says_what_a_mapping_call_does(void **state)
{
	struct machine *machine = *state;
	bool is_translated = machine->path & TRANSLATED;
	uint32_t path = is_translated ? DMACORE_PATH_IOMMU : DMACORE_PATH_DIRECT;
	uint32_t reason = is_translated		   ? DMACORE_REASON_TRANSLATES :
			  machine->path & IDENTITY ? DMACORE_REASON_IDENTITY :
						     DMACORE_REASON_NO_IOMMU;

	assert_decided(machine, LOW_BASE, path, reason, 0);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	assert_decided(machine, LOW_BASE, path, reason, 0);
	if (is_translated)
		assert_decided(machine, HIGH_BASE, path, reason, 0);
	else
		assert_decided(machine, HIGH_BASE, DMACORE_PATH_REFUSED,
			       reason | DMACORE_REASON_ABOVE_LIMIT | DMACORE_REASON_NO_POOL,
			       ERANGE);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 0, NULL));
	assert_decided(machine, LOW_BASE, DMACORE_PATH_REFUSED, DMACORE_REASON_NO_MASK, ENXIO);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, UINT64_MAX, NULL));
	if (!machine->domain)
		return;
	assert_decided(machine, UINT64_MAX - 99,
		       is_translated ? DMACORE_PATH_REFUSED : DMACORE_PATH_DIRECT,
		       reason | (is_translated ? DMACORE_REASON_TOO_WIDE : 0),
		       is_translated ? ERANGE : 0);
	machine_use(machine, DMACORE_DOMAIN_BLOCKED);
	assert_decided(machine, LOW_BASE, DMACORE_PATH_REFUSED, DMACORE_REASON_BLOCKED, EPERM);
	machine_use(machine, DMACORE_DOMAIN_UNMANAGED);
	assert_decided(machine, LOW_BASE, DMACORE_PATH_REFUSED, DMACORE_REASON_OWNED, EPERM);
	assert_ok(dmacore_domain_detach(machine->domain, machine->device));
	assert_decided(machine, LOW_BASE, DMACORE_PATH_REFUSED, DMACORE_REASON_BLOCKED, EPERM);
	assert_ok(dmacore_domain_attach(machine->domain, machine->device));
}

static void explain__decides_for_each_range_and_mask_of_a_hybrid_domain(void **state)
{
	struct machine *machine = *state;
	struct dmacore_dma_range range = { 0, 0, UINT64_C(1) << 40 };

	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
	assert_decided(machine, LOW_BASE, DMACORE_PATH_DIRECT, DMACORE_REASON_IN_WINDOW, 0);
	assert_decided(machine, HIGH_BASE, DMACORE_PATH_IOMMU,
		       DMACORE_REASON_TRANSLATES | DMACORE_REASON_ABOVE_LIMIT, 0);
	assert_decided(machine, 0x1000, DMACORE_PATH_IOMMU,
		       DMACORE_REASON_TRANSLATES | DMACORE_REASON_OUTSIDE_WINDOW, 0);
	/* By the other mask. */
	assert_int_equal(explain(machine->device, HIGH_BASE, 1, DMACORE_COHERENT, 0).path,
			 DMACORE_PATH_DIRECT);
	assert_int_equal(explain(machine->device, HIGH_BASE, 1, DMACORE_COHERENT, 0).limit,
			 UINT64_MAX);
	assert_ok(dmacore_device_set_ranges(machine->device, &range, 1));
	assert_decided(machine, LOW_BASE, DMACORE_PATH_IOMMU,
		       DMACORE_REASON_TRANSLATES | DMACORE_REASON_OUTSIDE_RANGES, 0);
}

static void explain__rejects_what_is_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct {
		struct dmacore_explanation known;
		uint64_t more;
	} out = { .known.struct_size = sizeof(out.known) };

	assert_fails(dmacore_device_explain(NULL, 0, 1, 0, 0, &out.known), EINVAL);
	assert_fails(dmacore_device_explain(device, 0, 1, 0, 0, NULL), EINVAL);
	assert_fails(dmacore_device_explain(device, 0, 0, 0, 0, &out.known), EINVAL);
	assert_fails(dmacore_device_explain(device, UINT64_MAX, 2, 0, 0, &out.known), EINVAL);
	assert_fails(dmacore_device_explain(device, 0, 1, 2, 0, &out.known), EINVAL);
	assert_fails(dmacore_device_explain(device, 0, 1, 0, 1, &out.known), EINVAL);
	assert_ok(dmacore_device_explain(device, 0, 1, 0, ATTRIBUTES, &out.known));
	out.known.struct_size--;
	assert_fails(dmacore_device_explain(device, 0, 1, 0, 0, &out.known), EINVAL);
	out.known.struct_size = sizeof(out);
	out.more = 7;
	assert_ok(dmacore_device_explain(device, 0, 1, 0, 0, &out.known));
	assert_int_equal(out.more, 0);
	out.known.struct_size = SIZE_MAX;
	assert_fails(dmacore_device_explain(device, 0, 1, 0, 0, &out.known), E2BIG);
}

static void describe__has_words_for_everything(void **state)
{
	struct dmacore_explanation explanation = { .struct_size = sizeof(explanation) };
	char text[256], small[8];

	(void)state;
	explanation.path = DMACORE_PATH_REFUSED;
	explanation.reasons = DMACORE_REASON_NO_IOMMU | DMACORE_REASON_ABOVE_LIMIT;
	explanation.error = ERANGE;
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_string_equal(text, "refused with error 34 because the device is behind no IOMMU, "
				  "it ends above the mask or the bus limit");
	assert_ok(dmacore_explanation_describe(&explanation, small, sizeof(small)));
	assert_string_equal(small, "refused");
	explanation.error = 0;
	for (uint32_t path = 0; path <= DMACORE_PATH_OPS; path++) {
		explanation.path = path;
		explanation.reasons = 0;
		assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
		assert_true(strlen(text) > 0 && !strstr(text, "because"));
	}
	for (uint32_t bit = 1; bit <= DMACORE_REASON_NO_POOL; bit <<= 1) {
		explanation.reasons = bit;
		assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
		assert_non_null(strstr(text, "because "));
	}
	explanation.reasons = DMACORE_REASON_PEER;
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_non_null(strstr(text, "because it is memory of a peer"));
	explanation.reasons = DMACORE_REASON_PEER_UNREACHABLE;
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_non_null(strstr(text, "does not reach the peer"));
	explanation.reasons = DMACORE_REASON_NO_BYPASS;
	assert_ok(dmacore_explanation_describe(&explanation, text, sizeof(text)));
	assert_non_null(strstr(text, "bypass is turned off"));
	explanation.path = DMACORE_PATH_OPS + 1;
	assert_fails(dmacore_explanation_describe(&explanation, text, sizeof(text)), EINVAL);
	explanation.path = 0;
	assert_fails(dmacore_explanation_describe(NULL, text, sizeof(text)), EINVAL);
	assert_fails(dmacore_explanation_describe(&explanation, NULL, sizeof(text)), EINVAL);
	assert_fails(dmacore_explanation_describe(&explanation, text, 0), EINVAL);
	explanation.struct_size--;
	assert_fails(dmacore_explanation_describe(&explanation, text, sizeof(text)), EINVAL);
}

/* Point 2 of what others leave open: masks change with live mappings, and one learns which are beyond. */
static void set_mask__tells_which_mappings_lie_beyond(void **state)
{
	struct machine *machine = *state;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	struct dmacore_mapping_info infos[4];
	dmacore_dma_t first, second, queue, top;
	size_t count = 0;
	void *cpu;

	first = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	second = map_for(machine, machine->high, 200, DMACORE_FROM_DEVICE);
	assert_ok(dmacore_alloc_coherent(machine->device, PAGE, &cpu, &queue));
	assert_ok(dmacore_device_set_mask(machine->device, 1, &beyond));
	assert_int_equal(beyond.count, 3);
	assert_true(beyond.is_complete);
	top = first > second ? first + 99 : second + 199;
	assert_int_equal(beyond.last, queue + PAGE - 1 > top ? queue + PAGE - 1 : top);
	top = first < second ? first : second;
	assert_int_equal(beyond.first, queue < top ? queue : top);
	assert_ok(dmacore_device_set_streaming_mask(machine->device, 1, &beyond));
	assert_int_equal(beyond.count, 2);
	assert_ok(dmacore_device_set_coherent_mask(machine->device, 1, &beyond));
	assert_int_equal(beyond.count, 1);
	assert_int_equal(beyond.first, queue);
	assert_int_equal(beyond.last, queue + PAGE - 1);
	assert_ok(dmacore_device_set_bus_limit(machine->device, 1, &beyond));
	assert_int_equal(beyond.count, 3);
	assert_ok(dmacore_device_set_bus_limit(machine->device, 0, &beyond));
	assert_int_equal(beyond.count, 0);
	assert_int_equal(beyond.first, 0);
	assert_int_equal(beyond.last, 0);
	assert_ok(dmacore_device_set_mask(machine->device, UINT64_MAX, &beyond));
	assert_int_equal(beyond.count, 0);

	assert_ok(dmacore_device_list_mappings(machine->device, 0, UINT64_MAX, infos, 4, &count));
	assert_int_equal(count, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(i == 0 || infos[i - 1].first < infos[i].first);
		assert_int_equal(infos[i].kind == DMACORE_COHERENT, infos[i].first == queue);
	}
	assert_ok(dmacore_device_list_mappings(machine->device, queue + 1, queue + 1, infos, 4,
					       &count));
	assert_int_equal(count, 1);
	assert_int_equal(infos[0].first, queue);
	/* How many there are, whatever there is room for. */
	infos[1].first = UNTOUCHED;
	assert_ok(dmacore_device_list_mappings(machine->device, 0, UINT64_MAX, infos, 1, &count));
	assert_int_equal(count, 3);
	assert_int_equal(infos[1].first, UNTOUCHED);
	assert_ok(dmacore_device_list_mappings(machine->device, 0, UINT64_MAX, NULL, 0, &count));
	assert_int_equal(count, 3);

	assert_ok(dmacore_unmap(machine->device, first, 100, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, second, 200, DMACORE_FROM_DEVICE, 0));
	assert_ok(dmacore_free_coherent(machine->device, PAGE, cpu, queue));
}

static void beyond__is_complete_only_where_records_are_kept(void **state)
{
	struct machine *machine = *state;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	bool is_complete = machine->path & (TRACKED | TRANSLATED);

	assert_ok(dmacore_device_set_mask(machine->device, 1, &beyond));
	assert_int_equal(beyond.is_complete, is_complete);
	if (!(machine->path & TRANSLATED) || machine->path & FLAT)
		return;
	/* What was mapped in a hybrid domain may live on. */
	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	machine_use(machine, DMACORE_DOMAIN_DMA);
	assert_ok(dmacore_device_set_mask(machine->device, 1, &beyond));
	assert_int_equal(beyond.is_complete, 0);
}

static void masks_and_lists__reject_what_is_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_device *device = machine->device;
	struct dmacore_beyond beyond = DMACORE_BEYOND_INIT;
	struct dmacore_mapping_info info;
	size_t count = 7;

	assert_fails(dmacore_device_set_mask(NULL, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_bus_limit(NULL, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_bus_limit(NULL, 1, NULL), EINVAL);
	beyond.struct_size--;
	assert_fails(dmacore_device_set_mask(device, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_streaming_mask(device, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_coherent_mask(device, 1, &beyond), EINVAL);
	assert_fails(dmacore_device_set_bus_limit(device, 1, &beyond), EINVAL);
	beyond.struct_size = SIZE_MAX;
	assert_fails(dmacore_device_set_mask(device, 1, &beyond), E2BIG);
	/* None of these has changed a mask. */
	assert_int_equal(explain(device, 0, 1, DMACORE_STREAMING, 0).limit, UINT64_MAX);
	assert_int_equal(explain(device, 0, 1, DMACORE_COHERENT, 0).limit, UINT64_MAX);
	assert_fails(dmacore_device_list_mappings(NULL, 0, 1, &info, 1, &count), EINVAL);
	assert_fails(dmacore_device_list_mappings(device, 1, 0, &info, 1, &count), EINVAL);
	assert_fails(dmacore_device_list_mappings(device, 0, 1, NULL, 1, &count), EINVAL);
	assert_fails(dmacore_device_list_mappings(device, 0, 1, &info, 1, NULL), EINVAL);
	assert_int_equal(count, 7);
}

static void set_ranges__moves_the_bus_and_leaves_mappings(void **state)
{
	struct machine *machine = *state;
	const struct dmacore_dma_range one = { 0x10000000, LOW_BASE, RAM_SIZE };
	const struct dmacore_dma_range other = { 0x20000000, LOW_BASE, RAM_SIZE };
	const struct dmacore_dma_range wrong[] = { one, one };
	dmacore_dma_t first, second;
	uint8_t byte = 0;

	machine->low[5] = 77;
	assert_ok(dmacore_device_set_ranges(machine->device, &one, 1));
	first = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	assert_int_equal(first, 0x10000000);
	assert_ok(dmacore_view_read(machine->view, first + 5, &byte, 1));
	assert_int_equal(byte, 77);
	/* Back and forth takes memory once: nothing grows. */
	for (unsigned i = 0; i < 100; i++) {
		assert_ok(dmacore_device_set_ranges(machine->device, i % 2 ? &one : &other, 1));
		assert_ok(dmacore_device_set_ranges(machine->device, NULL, 0));
	}
	assert_ok(dmacore_device_set_ranges(machine->device, &other, 1));
	second = map_for(machine, machine->low, 100, DMACORE_TO_DEVICE);
	assert_int_equal(second, 0x20000000);
	assert_fails(dmacore_device_set_ranges(machine->device, wrong, 2), EINVAL);
	assert_fails(dmacore_device_set_ranges(machine->device, NULL, 1), EINVAL);
	assert_fails(dmacore_device_set_ranges(NULL, &one, 1), EINVAL);
	assert_ok(dmacore_view_read(machine->view, second + 5, &byte, 1));
	assert_ok(dmacore_unmap(machine->device, first, 100, DMACORE_TO_DEVICE, 0));
	assert_ok(dmacore_unmap(machine->device, second, 100, DMACORE_TO_DEVICE, 0));
	assert_misuse(machine, dmacore_unmap(machine->device, second, 100, DMACORE_TO_DEVICE, 0));
}

static void mapping_limits__are_those_of_the_path(void **state)
{
	struct machine *machine = *state;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	const struct dmacore_dma_range range = { 0, 0, UINT64_C(1) << 32 };

	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.optimal_size, limits.max_size);
	assert_int_equal(limits.is_addressing_limited, 0);
	if (machine->path & TRANSLATED) {
		assert_int_equal(limits.merge_boundary_mask, PAGE - 1);
		assert_int_equal(limits.required_mask, UINT32_MAX);
		machine_narrow(machine, PAGE, 16 * PAGE - 1);
		assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
		assert_int_equal(limits.max_size, 14 * PAGE + 1);
		assert_ok(dmacore_device_set_mask(machine->device, 5 * PAGE - 1, NULL));
		assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
		assert_int_equal(limits.max_size, 3 * PAGE + 1);
		assert_int_equal(limits.is_addressing_limited, 0);
		machine_use(machine, DMACORE_DOMAIN_BLOCKED);
		assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
		assert_int_equal(limits.max_size, 0);
		return;
	}
	assert_int_equal(limits.merge_boundary_mask, 0);
	assert_int_equal(limits.max_size, UINT64_MAX);
	if (machine->path & FLAT) {
		assert_int_equal(limits.required_mask, DMACORE_BIT_MASK(48));
		return;
	}
	/* POOL_HIGH_BASE is at 8 GiB. */
	assert_int_equal(limits.required_mask, DMACORE_BIT_MASK(34));
	assert_ok(dmacore_device_set_mask(machine->device, DMACORE_BIT_MASK(33), NULL));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.is_addressing_limited, 1);
	assert_ok(dmacore_device_set_mask(machine->device, UINT64_MAX, NULL));
	assert_ok(dmacore_device_set_ranges(machine->device, &range, 1));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.is_addressing_limited, 1);
	assert_int_equal(limits.required_mask, UINT32_MAX);
	assert_ok(dmacore_device_set_mask(machine->device, 0, NULL));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.max_size, 0);
}

/* That much can be mapped wherever it starts, and at one place no more. */
static void assert_max_size(struct dmacore_device *device, bool is_exact)
{
	static const uint64_t offsets[] = { 0, 1, 2047, 2048, PAGE - 1, PAGE, 3 * PAGE + 100 };
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	unsigned larger = 0;
	dmacore_dma_t dma;

	assert_ok(dmacore_device_mapping_limits(device, &limits));
	assert_true(limits.max_size > 0 && limits.max_size < RAM_SIZE);
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		const dmacore_phys_t phys = HIGH_BASE + offsets[i];

		assert_ok(dmacore_map_phys(device, phys, limits.max_size, DMACORE_BIDIRECTIONAL, 0,
					   &dma));
		assert_ok(dmacore_unmap(device, dma, limits.max_size, DMACORE_BIDIRECTIONAL, 0));
		if (dmacore_map_phys(device, phys, limits.max_size + 1, DMACORE_BIDIRECTIONAL,
				     DMACORE_ATTR_NO_WARN, &dma) != 0)
			continue;
		larger++;
		assert_ok(dmacore_unmap(device, dma, limits.max_size + 1, DMACORE_BIDIRECTIONAL,
					DMACORE_ATTR_NO_WARN));
	}
	if (is_exact)
		assert_true(larger < sizeof(offsets) / sizeof(offsets[0]));
}

static void max_size__can_be_mapped_wherever_it_starts(void **state)
{
	static const uint64_t masks[] = { 0, 511, 2 * PAGE - 1 };
	static const uint64_t sizes[][2] = { { 12, 12 }, { 4, 16 }, { 12, 13 } };
	struct machine *machine = *state;
	struct dmacore_device_limits limits = DMACORE_DEVICE_LIMITS_INIT;

	for (unsigned i = 0; i < 3; i++) {
		limits.min_align_mask = masks[i];
		machine_narrow(machine, PAGE, 13 * PAGE - 1);
		assert_ok(dmacore_device_set_limits(machine->device, &limits));
		assert_max_size(machine->device, masks[i] < PAGE);
		assert_ok(dmacore_device_set_bus_limit(machine->device, 9 * PAGE + 100, NULL));
		assert_max_size(machine->device, masks[i] < PAGE);
		assert_ok(dmacore_device_set_bus_limit(machine->device, 0, NULL));
		/* Beside memory, which lies in the middle. */
		machine_replace_domain(machine, DMACORE_DOMAIN_HYBRID, LOW_BASE - 13 * PAGE,
				       NEXT_BASE + RAM_SIZE + 5 * PAGE - 1);
		assert_ok(dmacore_device_set_mask(machine->device, DMACORE_BIT_MASK(32), NULL));
		assert_max_size(machine->device, masks[i] < PAGE);
		assert_ok(dmacore_device_set_mask(machine->device, UINT64_MAX, NULL));
		/* Copied, all of it, or what the device does not reach. */
		for (unsigned j = 0; j < 6; j++) {
			struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
			struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
			struct dmacore_device *copied;

			pool.size = sizes[j / 2][0] * PAGE;
			pool.size_max = sizes[j / 2][1] * PAGE;
			pool.limit = DMACORE_BIT_MASK(32);
			assert_ok(dmacore_bounce_pool_create(machine->system, &pool,
							     &options.bounce_pool));
			options.flags = j % 2 ? DMACORE_DEVICE_FORCE_BOUNCE : 0;
			options.streaming_mask = DMACORE_BIT_MASK(j % 2 ? 64 : 32);
			assert_ok(dmacore_device_create(machine->system, &options, &copied));
			assert_ok(dmacore_device_set_limits(copied, &limits));
			assert_max_size(copied, false);
			dmacore_device_destroy(copied);
			dmacore_bounce_pool_destroy(options.bounce_pool);
		}
	}
}

static void max_size__of_a_pool_out_of_reach_is_none(void **state)
{
	struct machine *machine = *state;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };
	struct dmacore_bounce_pool_options pool = DMACORE_BOUNCE_POOL_OPTIONS_INIT;
	struct dmacore_device_options options = DMACORE_DEVICE_OPTIONS_INIT;
	struct dmacore_device *device;

	pool.size = pool.size_max = 2 * PAGE;
	assert_ok(dmacore_bounce_pool_create(machine->system, &pool, &options.bounce_pool));
	options.flags = DMACORE_DEVICE_FORCE_BOUNCE;
	options.streaming_mask = DMACORE_BIT_MASK(16);
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_device_mapping_limits(device, &limits));
	assert_int_equal(limits.max_size, 0);
	dmacore_device_destroy(device);
	/* What a mask has no addresses for is not direct either. */
	options.flags = 0;
	assert_ok(dmacore_device_create(machine->system, &options, &device));
	assert_ok(dmacore_device_mapping_limits(device, &limits));
	assert_int_equal(limits.max_size, 1 << 16);
	dmacore_device_destroy(device);
	dmacore_bounce_pool_destroy(options.bounce_pool);
}

static void mapping_limits__of_a_hybrid_domain_promise_no_merging(void **state)
{
	struct machine *machine = *state;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };

	machine_use(machine, DMACORE_DOMAIN_HYBRID);
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_int_equal(limits.merge_boundary_mask, 0);
	/* All memory is reached directly, or else as much as lies between it. */
	assert_int_equal(limits.max_size, UINT64_MAX);
	assert_ok(dmacore_domain_set_bypass(machine->domain, false));
	assert_ok(dmacore_device_mapping_limits(machine->device, &limits));
	assert_true(limits.max_size > 0 && limits.max_size < UINT64_C(1) << 57);
}

static void map_single__without_a_mask_fails_alike_wherever_the_buffer_is(void **state)
{
	struct machine *machine = *state;
	uint8_t byte;
	dmacore_dma_t dma;

	assert_fails(dmacore_map_single(machine->device, &byte, 1, DMACORE_TO_DEVICE, 0, &dma),
		     EFAULT);
	assert_ok(dmacore_device_set_mask(machine->device, 0, NULL));
	assert_fails(dmacore_map_single(machine->device, &byte, 1, DMACORE_TO_DEVICE, 0, &dma),
		     ENXIO);
	assert_fails(
		dmacore_map_single(machine->device, machine->low, 1, DMACORE_TO_DEVICE, 0, &dma),
		ENXIO);
}

static void mapping_limits__rejects_what_is_nothing(void **state)
{
	struct machine *machine = *state;
	struct dmacore_mapping_limits limits = { .struct_size = sizeof(limits) };

	assert_fails(dmacore_device_mapping_limits(NULL, &limits), EINVAL);
	assert_fails(dmacore_device_mapping_limits(machine->device, NULL), EINVAL);
	limits.struct_size--;
	assert_fails(dmacore_device_mapping_limits(machine->device, &limits), EINVAL);
	limits.struct_size = SIZE_MAX;
	assert_fails(dmacore_device_mapping_limits(machine->device, &limits), E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_on(DIRECT, explain__says_what_a_mapping_call_does),
		test_on(TRACKED, explain__says_what_a_mapping_call_does),
		test_on(IDENTITY, explain__says_what_a_mapping_call_does),
		test_on(IDENTITY | TRACKED, explain__says_what_a_mapping_call_does),
		test_on_translated(explain__says_what_a_mapping_call_does),
		test_on_translated(explain__decides_for_each_range_and_mask_of_a_hybrid_domain),
		test_on(DIRECT, explain__rejects_what_is_nothing),
		cmocka_unit_test(describe__has_words_for_everything),
		test_on_recorded(set_mask__tells_which_mappings_lie_beyond),
		test_on_all(beyond__is_complete_only_where_records_are_kept),
		test_on_all(masks_and_lists__reject_what_is_nothing),
		test_on(TRACKED, set_ranges__moves_the_bus_and_leaves_mappings),
		test_on(IDENTITY | TRACKED, set_ranges__moves_the_bus_and_leaves_mappings),
		test_on(DIRECT, mapping_limits__are_those_of_the_path),
		test_on(IDENTITY, mapping_limits__are_those_of_the_path),
		test_on_translated(mapping_limits__are_those_of_the_path),
		test_on(FLAT, mapping_limits__are_those_of_the_path),
		test_on(TRANSLATED, mapping_limits__of_a_hybrid_domain_promise_no_merging),
		test_on(TRANSLATED, max_size__can_be_mapped_wherever_it_starts),
		test_on(DIRECT, max_size__of_a_pool_out_of_reach_is_none),
		test_on(DIRECT, map_single__without_a_mask_fails_alike_wherever_the_buffer_is),
		test_on(DIRECT, mapping_limits__rejects_what_is_nothing),
	};

	return run_group("policy", tests);
}
