// Asks the real lwtnn about batches of events: driver KIND NETWORK.json MEMORY HOW OUTPUT [HOW OUTPUT ...]
//
// KIND     graph (lwt::LightweightGraph), nn (lwt::LightweightNeuralNetwork) or rnn (lwt::LightweightRNN)
// MEMORY   bytes of memory that it may take
// HOW      compute (one vector per event) or scan (one per step) the OUTPUT of that name
//
// Numbers are this machine's own, counts uint64, values float64.
// stdin, batch after batch:   events, steps of every input sequence, then for every input [events][variables] and for
//                             every input sequence [events][steps][variables], in the order of the file
// stdout, batch after batch:  for every question steps, labels, [events][steps][labels] (one step for compute)
//
// A NaN becomes the default of its variable, as lwt::NanReplacer does with rep::nan for its caller; lwtnn does the rest.
// What goes wrong is one line on stderr and exit code 1.
#include "lwtnn/LightweightGraph.hh"
#include "lwtnn/LightweightNeuralNetwork.hh"
#include "lwtnn/parse_json.hh"

#include <sys/resource.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Count = std::uint64_t;

bool read(void* place, std::size_t size, std::size_t count) { return std::fread(place, size, count, stdin) == count; }

void write(const void* place, std::size_t size, std::size_t count) {
  if (std::fwrite(place, size, count, stdout) != count) throw std::runtime_error("nobody reads the answers");
}

Count counted() {
  Count count;
  if (!read(&count, sizeof count, 1)) throw std::runtime_error("the batch ends too early");
  return count;
}

// The values of one input or input sequence: where they go, and what stands in for a NaN.
template <typename Slot>
struct Group {
  std::vector<Slot*> slots;
  std::vector<double> defaults;
  Count steps = 1;
  std::vector<double> values;

  void fetch(Count events) {
    values.resize(events * steps * slots.size());
    if (!read(values.data(), sizeof(double), values.size())) throw std::runtime_error("the batch ends too early");
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) values[i] = defaults[i % slots.size()];
    }
  }
};

void put(Group<double>& group, Count event) {
  const double* row = group.values.data() + event * group.slots.size();
  for (std::size_t i = 0; i < group.slots.size(); ++i) *group.slots[i] = row[i];
}

void put(Group<std::vector<double>>& group, Count event) {
  const std::size_t width = group.slots.size();
  const double* row = group.values.data() + event * group.steps * width;
  for (std::size_t i = 0; i < width; ++i) {
    group.slots[i]->resize(group.steps);
    for (Count step = 0; step < group.steps; ++step) (*group.slots[i])[step] = row[step * width + i];
  }
}

// Makes a place in `map` for each of `variables`.
template <typename Slot>
Group<Slot> group_of(std::map<std::string, Slot>& map, const std::vector<lwt::Input>& variables,
                     const std::map<std::string, double>& defaults) {
  Group<Slot> group;
  for (const lwt::Input& variable : variables) {
    const auto found = defaults.find(variable.name);
    group.slots.push_back(&map[variable.name]);
    group.defaults.push_back(found == defaults.end() ? std::numeric_limits<double>::quiet_NaN() : found->second);
  }
  return group;
}

struct Question {
  bool scan;
  std::string output;
  std::vector<std::string> labels;
  Count steps = 1;
  std::vector<double> answer;
};

// A network of any kind, its inputs as maps that `Group`s fill.
struct Network {
  std::unique_ptr<lwt::LightweightGraph> graph;
  std::unique_ptr<lwt::LightweightNeuralNetwork> plain;
  std::unique_ptr<lwt::LightweightRNN> recurrent;
  lwt::LightweightGraph::NodeMap scalars;
  lwt::LightweightGraph::SeqNodeMap sequences;
  std::vector<Group<double>> inputs;
  std::vector<Group<std::vector<double>>> input_sequences;
  std::map<std::string, std::vector<std::string>> labels;

  Network(const std::string& kind, const char* path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(std::string("cannot open ") + path);
    if (kind == "graph") {
      const auto config = lwt::parse_json_graph(file);
      for (const auto& node : config.inputs) {
        inputs.push_back(group_of(scalars[node.name], node.variables, node.defaults));
      }
      for (const auto& node : config.input_sequences) {
        input_sequences.push_back(group_of(sequences[node.name], node.variables, node.defaults));
      }
      for (const auto& output : config.outputs) labels[output.first] = output.second.labels;
      graph.reset(new lwt::LightweightGraph(config, config.outputs.begin()->first));
      return;
    }
    const auto config = lwt::parse_json(file);
    labels["outputs"] = config.outputs;
    if (kind == "nn") {
      inputs.push_back(group_of(scalars["inputs"], config.inputs, config.defaults));
      plain.reset(new lwt::LightweightNeuralNetwork(config.inputs, config.layers, config.outputs));
    } else {
      input_sequences.push_back(group_of(sequences["inputs"], config.inputs, config.defaults));
      recurrent.reset(new lwt::LightweightRNN(config.inputs, config.layers, config.outputs));
    }
  }

  void ask(Question& question) {
    if (question.scan) {
      if (!graph) throw std::runtime_error("only a graph can be scanned");
      const lwt::VectorMap rows = graph->scan(scalars, sequences, question.output);
      question.steps = question.labels.empty() ? 0 : rows.at(question.labels.front()).size();
      for (Count step = 0; step < question.steps; ++step) {
        for (const auto& label : question.labels) question.answer.push_back(rows.at(label).at(step));
      }
      return;
    }
    if (recurrent && input_sequences.front().steps == 0) {
      throw std::runtime_error("lwt::LightweightRNN has no answer to an empty sequence: it crashes");
    }
    const lwt::ValueMap row = graph ? graph->compute(scalars, sequences, question.output)
                              : plain ? plain->compute(scalars["inputs"])
                                      : recurrent->reduce(sequences["inputs"]);
    for (const auto& label : question.labels) question.answer.push_back(row.at(label));
  }
};

void run(int count, char** words) {
  if (count < 6 || count % 2 != 0) throw std::runtime_error("driver KIND NETWORK.json MEMORY HOW OUTPUT ...");
  const rlim_t most = std::strtoull(words[3], nullptr, 10);
  const rlimit limit = {most, most};
  setrlimit(RLIMIT_AS, &limit);
  Network network(words[1], words[2]);
  std::vector<Question> questions;
  for (int i = 4; i < count; i += 2) {
    questions.push_back({std::string(words[i]) == "scan", words[i + 1], network.labels.at(words[i + 1])});
  }
  Count events;
  while (read(&events, sizeof events, 1)) {
    for (auto& group : network.input_sequences) group.steps = counted();
    for (auto& group : network.inputs) group.fetch(events);
    for (auto& group : network.input_sequences) group.fetch(events);
    for (auto& question : questions) question.answer.clear();
    for (Count event = 0; event < events; ++event) {
      for (auto& group : network.inputs) put(group, event);
      for (auto& group : network.input_sequences) put(group, event);
      for (auto& question : questions) network.ask(question);
    }
    for (const auto& question : questions) {
      const Count shape[] = {question.steps, question.labels.size()};
      write(shape, sizeof(Count), 2);
      write(question.answer.data(), sizeof(double), question.answer.size());
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** words) {
  try {
    run(count, words);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "out of memory\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
