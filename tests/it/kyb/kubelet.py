# SPDX-License-Identifier: Apache-2.0
"""kubelet's pod-resources API, emulated: what it says which container has been given."""
import concurrent.futures

import grpc

from . import protos

pb = protos.module("api.kubelet.podresources_pb2")


class Kubelet:
    """pods: {(namespace, pod): {container: [device ids]}}; asked: how often it was."""

    def __init__(self, socket, pods):
        self.pods = pods
        self.asked = 0
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._list, request_deserializer=pb.ListPodResourcesRequest.FromString,
            response_serializer=pb.ListPodResourcesResponse.SerializeToString)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            "v1.PodResourcesLister", {"List": handler})])
        assert self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def _list(self, _request, _context):
        self.asked += 1
        reply = pb.ListPodResourcesResponse()
        for (namespace, name), containers in self.pods.items():
            pod = reply.pod_resources.add(name=name, namespace=namespace)
            for container, ids in containers.items():
                made = pod.containers.add(name=container)
                made.devices.add(resource_name="nvidia.com/gpu", device_ids=ids)
        return reply

    def close(self):
        self._server.stop(0).wait()
