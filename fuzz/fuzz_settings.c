/* SPDX-License-Identifier: Apache-2.0 */
/* Settings files: whatever is accepted is complete and within its bounds. */
#include <assert.h>

#include "conf/agent_settings.h"
#include "conf/shim_settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error err = ERROR_NULL;
	struct agent_settings agent;
	struct shim_settings shim;

	if (shim_settings_parse(bytes_of(data, n), &shim, &err) == 0) {
		assert(shim.agent_socket[0] == '/' && shim.gpu.device_prefixes.n > 0);
		assert(shim.timeouts.operation > 0 &&
		       shim.timeouts.operation <= SETTING_DURATION_MAX);
		shim_settings_done(&shim);
	} else {
		assert(err.text[0]);
	}
	if (agent_settings_parse(bytes_of(data, n), &agent, &err) == 0) {
		assert(agent.limits.criu > 0 && agent.allowed_uids.n > 0);
		for (size_t i = 0; i < agent.n_groups; i++)
			assert(agent_settings_group(&agent, agent.groups[i].name) ==
			       &agent.groups[i]);
		agent_settings_done(&agent);
	}
	return 0;
}
