"""The common graph: `onnx_ir.Model` with ONNX meaning, an interface record, and one spelling."""
