// SPDX-License-Identifier: Apache-2.0

// Command go_descriptors lists every field, enum value and method of containerd's own Go modules, and of the CRI.
//
//	go run . > ../containerd_api.txt
package main

import (
	"fmt"
	"slices"
	"strings"

	_ "github.com/containerd/cgroups/v3/cgroup1/stats"
	_ "github.com/containerd/cgroups/v3/cgroup2/stats"
	_ "github.com/containerd/containerd/api/events"
	_ "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	_ "github.com/containerd/containerd/api/runtime/sandbox/v1"
	_ "github.com/containerd/containerd/api/runtime/task/v2"
	_ "github.com/containerd/containerd/api/runtime/task/v3"
	_ "github.com/containerd/containerd/api/services/containers/v1"
	_ "github.com/containerd/containerd/api/services/content/v1"
	_ "github.com/containerd/containerd/api/services/images/v1"
	_ "github.com/containerd/containerd/api/services/introspection/v1"
	_ "github.com/containerd/containerd/api/services/snapshots/v1"
	_ "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	_ "github.com/containerd/containerd/api/services/version/v1"
	_ "github.com/containerd/containerd/api/types"
	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var lines []string

func main() {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		name := string(file.Package())
		if strings.Contains(name, "containerd") || name == "runtimeoptions.v1" || name == "runtime.v1" {
			messages(file.Messages())
			enums(file.Enums())
			services(file.Services())
		}
		return true
	})
	slices.Sort(lines)
	fmt.Println(strings.Join(lines, "\n"))
}

func messages(all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		message := all.Get(i)
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			kind := field.Kind().String()
			if field.Message() != nil {
				kind = string(field.Message().FullName())
			} else if field.Enum() != nil {
				kind = string(field.Enum().FullName())
			}
			lines = append(lines, fmt.Sprintf("field %s %d %v %s", field.FullName(), field.Number(), field.IsList() || field.IsMap(), kind))
		}
		messages(message.Messages())
		enums(message.Enums())
	}
}

func enums(all protoreflect.EnumDescriptors) {
	for i := range all.Len() {
		values := all.Get(i).Values()
		for j := range values.Len() {
			lines = append(lines, fmt.Sprintf("value %s %s %d", all.Get(i).FullName(), values.Get(j).Name(), values.Get(j).Number()))
		}
	}
}

func services(all protoreflect.ServiceDescriptors) {
	for i := range all.Len() {
		methods := all.Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			lines = append(lines, fmt.Sprintf("method %s %s %s %v %v", method.FullName(), method.Input().FullName(),
				method.Output().FullName(), method.IsStreamingClient(), method.IsStreamingServer()))
		}
	}
}
